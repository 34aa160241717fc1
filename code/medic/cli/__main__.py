"""``python -m medic.cli``: the command line where no script was installed."""

from medic.cli import main

main()
