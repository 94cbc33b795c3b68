"""What `dkfs status` says of io modes."""

from dkfs.cli.status import io_text


def test_the_mode_in_effect_is_named() -> None:
    assert io_text({"io": "strict"}) == "strict"
    answer = {"io": "hybrid", "io_asked": "hybrid", "io_rules": 2, "io_why": ""}
    assert io_text(answer) == "hybrid, 2 rules for paths"


def test_why_it_is_not_what_was_asked_for_is_said() -> None:
    answer = {"io": "strict", "io_asked": "checkpoint", "io_rules": 0, "io_why": "it takes more"}

    assert io_text(answer) == "strict (checkpoint was asked for: it takes more)"
    assert (
        io_text({**answer, "io_asked": "strict", "io_rules": 1})
        == "strict, 1 rules for paths (another mode for some paths was asked for: it takes more)"
    )
