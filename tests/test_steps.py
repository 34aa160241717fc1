"""What a notebook takes over from an earlier one is made where it is absent, for every line of the series."""

from medic.data import idx
from medic.data.digits_sample import write_sample
from medic.data.lines import LINES
from medic.notebooks import begin
from medic.steps import PREPARED_SIZE, prepared_set


def test_every_line_has_a_size_in_every_profile():
    assert set(PREPARED_SIZE) == set(LINES)
    assert all(set(sizes) == {"quick", "full"} for sizes in PREPARED_SIZE.values())


def test_digits_are_prepared_at_their_own_size_and_found_again(clone, monkeypatch, capsys):
    monkeypatch.chdir(clone)
    write_sample(clone / "sample_data" / "digits")
    for path in (clone / "sample_data" / "digits").glob("*.gz"):
        idx.write(path, idx.read(path)[:120])
    session = begin("quick", "sample_data", line="digits")
    prepared = prepared_set(session, "digits")
    assert prepared.preprocessing.size == 28
    assert set(prepared.records["split"]) == {"train", "validation", "test"}
    capsys.readouterr()
    assert prepared_set(session, "digits").records.equals(prepared.records)
    assert "prepared set: found" in capsys.readouterr().out
