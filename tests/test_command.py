import pytest

from mnist_jax import command
from mnist_jax.errors import UserError


def parser():
    made = command.Parser("scripts/thing", "Does a thing.")
    made.add_argument("--number", type=int)
    return made


def act(result):
    def run(options):
        if isinstance(result, BaseException):
            raise result
        return result

    return run


@pytest.mark.parametrize("status", [0, 1])
def test_the_status_is_that_of_the_act(status):
    assert command.run(parser(), [], act(status)) == status


def test_a_mistake_is_one_line_and_status_2(capfd):
    assert command.run(parser(), [], act(UserError("3 is not 4; give 4"))) == 2
    assert capfd.readouterr() == ("", "error: 3 is not 4; give 4\n")


@pytest.mark.parametrize("arguments", [["--number=x"], ["--nothing"], ["--num=3"]])
def test_arguments_that_are_not_understood_are_a_mistake(arguments, capfd):
    assert command.run(parser(), arguments, act(0)) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("error: ") and err.endswith("; see scripts/thing --help\n")


def test_an_interruption_says_so(capfd):
    assert command.run(parser(), [], act(KeyboardInterrupt())) == 130
    assert "interrupted" in capfd.readouterr().err
