"""A configuration that changes while the agent runs."""

import asyncio
from dataclasses import replace

import click
import pytest
import structlog
from click.testing import CliRunner
from structlog.testing import capture_logs

from fast.agent.config.agent_config import AgentConfig, agent_options
from fast.agent.config.interval import Interval
from fast.agent.config.reload import LIVE, Reloader
from fast.logs import configure_logs


def a_config(**changes):
    found = []

    @click.command()
    @agent_options
    def command(**options):
        found.append(AgentConfig(**options))

    CliRunner().invoke(command, [], env={"NODE_NAME": "n1"}, catch_exceptions=False)
    return replace(found[0], **changes)


class Agent:
    """What a reloader works on."""

    def __init__(self, file=None):
        self.config = self.next = a_config()
        self.applied = []
        self.hangup = asyncio.Event()
        self.reloader = Reloader(
            self.config, self.read, self.applied.append, self.hangup, file=file, look_seconds=0.01
        )

    def read(self):
        if isinstance(self.next, Exception):
            raise self.next
        return self.next


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.005)


def events(logs):
    return {entry["event"]: entry for entry in logs}


def test_live_settings_are_applied_and_the_log_says_which_need_a_restart():
    agent = Agent()
    agent.next = replace(agent.config, log_level="debug", gc_interval_seconds=5.0, tunnel_port=9999)
    with capture_logs() as logs:
        agent.reloader.reload()
    assert agent.applied == [replace(agent.config, log_level="debug", gc_interval_seconds=5.0)]
    said = events(logs)
    assert said["configuration read again"]["applied"] == ["gc-interval-seconds", "log-level"]
    assert said["changed settings that need a restart of the agent"]["settings"] == ["tunnel-port"]


def test_what_needs_a_restart_is_said_at_every_reload_and_what_was_applied_once():
    agent = Agent()
    agent.next = replace(agent.config, log_level="debug", tunnel_port=9999)
    agent.reloader.reload()
    with capture_logs() as logs:
        agent.reloader.reload()
    assert len(agent.applied) == 1
    assert events(logs)["configuration read again"]["applied"] == []
    assert "changed settings that need a restart of the agent" in events(logs)


def test_a_configuration_that_cannot_be_used_changes_nothing():
    agent = Agent()
    agent.next = click.BadParameter("unknown options: tunel-port")
    with capture_logs() as logs:
        agent.reloader.reload()
    assert agent.applied == []
    assert "tunel-port" in logs[0]["error"]


def test_every_live_setting_is_one_of_the_configuration():
    assert set(LIVE) <= set(AgentConfig.__dataclass_fields__)


async def test_sighup_and_a_changed_file_make_it_read_again(tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text("log-level: info\n")
    agent = Agent(file)
    task = asyncio.create_task(agent.reloader.run())
    agent.next = replace(agent.config, log_level="debug")
    agent.hangup.set()
    await until(lambda: len(agent.applied) == 1)
    agent.next = replace(agent.config, log_level="error")
    fresh = tmp_path / "new"
    fresh.write_text("log-level: error\n")
    fresh.rename(file)
    await until(lambda: len(agent.applied) == 2)
    assert agent.applied[-1].log_level == "error"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_interval_that_gets_shorter_ends_the_wait_and_one_that_gets_longer_prolongs_it():
    interval = Interval(3600)
    waiting = asyncio.create_task(interval.wait())
    await asyncio.sleep(0)
    interval.change(0.01)
    async with asyncio.timeout(10):
        await waiting
    interval.change(0.05)
    waiting = asyncio.create_task(interval.wait())
    await asyncio.sleep(0)
    interval.change(3600)
    done, _ = await asyncio.wait([waiting], timeout=0.15)
    assert not done
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.fixture
def logs_as_before():
    yield
    structlog.reset_defaults()


def test_a_logger_in_use_follows_a_change_of_the_level(logs_as_before, capfd):
    log = structlog.get_logger()
    configure_logs("info", "json")
    log.debug("first")
    configure_logs("debug", "json")
    log.debug("second")
    configure_logs("warning", "json")
    log.info("third")
    said = capfd.readouterr().err
    assert [word in said for word in ("first", "second", "third")] == [False, True, False]
