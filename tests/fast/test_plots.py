"""A figure that is presented says in a corner that the images are synthetic, is saved, and is closed."""

import matplotlib as mpl
import matplotlib.pyplot as plt

from medic import plots


def test_what_is_presented_is_titled_saved_and_closed(tmp_path):
    class Session:
        synthetic = True
        images = tmp_path

    with mpl.rc_context():
        mpl.use("Agg")
        plots.use_style()
        figure, _ = plt.subplots()
        plots.present(figure, "Nothing here", "nothing", Session())
    assert (figure.get_suptitle(), figure.get_supxlabel()) == ("Nothing here", "synthetic sample")
    assert (tmp_path / "nothing.png").is_file()
    assert not plt.fignum_exists(figure.number)
