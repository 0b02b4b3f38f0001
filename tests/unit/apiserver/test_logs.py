"""What the server logs, and where to."""

import structlog

from fast_playground.apiserver.fast_apiserver import configure_logs


def test_a_failure_is_logged_to_stderr_without_the_values_of_variables(capsys):
    before = structlog.get_config()
    configure_logs()
    secret = "of everybody" * 10
    try:
        len(secret) / 0
    except ZeroDivisionError:
        structlog.get_logger().exception("a request failed")
    finally:
        structlog.configure(**before)
    out, err = capsys.readouterr()
    assert out == ""
    assert "a request failed" in err
    assert "ZeroDivisionError" in err
    assert "of everybodyof" not in err
