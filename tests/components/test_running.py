"""Running handlers: interceptors, tracing, threads and the run that is under way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from evento import (
    HandlerCall,
    HandlerDefinition,
    HandlerKind,
    Interceptor,
    Message,
    Metadata,
    Projection,
    Query,
    QueryMessage,
    TracingAgent,
    query_handler,
    track,
)
from evento.components import HandlerRunner, component_definition
from evento.gateway.handling import Handling, current_handling
from evento.messages import Request


class Ask(Query[str]):
    text: str


class AskPlainly(Query[str]):
    text: str


class Answers(Projection):
    @query_handler
    async def ask(self, query: Ask, metadata: Metadata) -> str:
        if query.text == "fail":
            raise KeyError(query.text)
        return f"{query.text} {dict(metadata)}"

    @track
    @query_handler(executor="threads")
    def ask_plainly(self, query: AskPlainly) -> str:
        handling = current_handling()
        return f"{threading.current_thread().name} {handling.handler if handling else None}"


ASK, ASK_PLAINLY = component_definition(Answers).handlers
INJECTION = SimpleNamespace(metadata=Metadata({"user": "ann"}))


def handling_of(handler: HandlerDefinition, payload: Query[Any]) -> Handling:
    request = Request(
        kind="query",
        name=handler.payload_name,
        payload=b"{}",
        metadata=Metadata(),
        message_id="m",
        correlation_id="m",
        causation_id=None,
        timestamp=0,
    )
    message = QueryMessage(payload, request)
    return Handling(message, handler=handler.id, metadata=Metadata(), may_send=False, may_query=True)


async def run(runner: HandlerRunner, payload: Query[Any]) -> Any:
    return await runner.run(payload, INJECTION, handling_of(runner.handler, payload))


class Noting(Interceptor):
    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    async def before(self, call: HandlerCall) -> None:
        self.notes.append(f"{self.name} before {call.payload.text}")
        assert call.kind is HandlerKind.QUERY
        assert call.message.payload is call.payload
        assert call.injection is INJECTION

    async def after(self, call: HandlerCall, result: Any) -> Any:
        self.notes.append(f"{self.name} after")
        return f"{result} {self.name}"

    async def on_exception(self, call: HandlerCall, error: Exception) -> Exception:
        self.notes.append(f"{self.name} {error!r}")
        return error


async def test_a_handler_runs_with_what_is_injected() -> None:
    assert await run(HandlerRunner(ASK, Answers()), Ask("why")) == "why {'user': 'ann'}"


async def test_a_run_is_known_to_what_it_calls_and_forgotten_afterwards() -> None:
    seen: list[Handling | None] = []

    class Looking(Interceptor):
        async def before(self, call: HandlerCall) -> None:
            seen.append(current_handling())

    await run(HandlerRunner(ASK, Answers(), interceptors=[Looking()]), Ask("why"))
    assert seen[0] is not None
    assert seen[0].handler == "Answers.ask"
    assert current_handling() is None

    with pytest.raises(KeyError):
        await run(HandlerRunner(ASK, Answers()), Ask("fail"))
    assert current_handling() is None


async def test_a_plain_def_moves_to_threads() -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
        runner = HandlerRunner(ASK_PLAINLY, Answers(), executor=pool)
        assert await run(runner, AskPlainly("")) == "pool_0 Answers.ask_plainly"


class TestInterceptors:
    async def test_the_first_is_the_outermost(self) -> None:
        notes: list[str] = []
        runner = HandlerRunner(ASK, Answers(), interceptors=[Noting("a", notes), Noting("b", notes)])

        assert await run(runner, Ask("why")) == "why {'user': 'ann'} b a"
        assert notes == ["a before why", "b before why", "b after", "a after"]

    async def test_they_see_errors_from_the_inside_out(self) -> None:
        notes: list[str] = []
        runner = HandlerRunner(ASK, Answers(), interceptors=[Noting("a", notes), Noting("b", notes)])

        with pytest.raises(KeyError) as caught:
            await run(runner, Ask("fail"))
        assert notes[2:] == ["b KeyError('fail')", "a KeyError('fail')"]
        assert caught.value.__cause__ is None

    async def test_they_may_replace_an_error(self) -> None:
        class Replacing(Interceptor):
            async def on_exception(self, call: HandlerCall, error: Exception) -> Exception:
                return ValueError("replaced")

        with pytest.raises(ValueError, match="replaced") as caught:
            await run(HandlerRunner(ASK, Answers(), interceptors=[Replacing()]), Ask("fail"))
        assert isinstance(caught.value.__cause__, KeyError)

    async def test_one_that_raises_before_refuses_the_call(self) -> None:
        class Refusing(Interceptor):
            async def before(self, call: HandlerCall) -> None:
                raise PermissionError("no")

        class Failing(Interceptor):
            async def before(self, call: HandlerCall) -> None:
                pytest.fail("an inner interceptor ran")

        with pytest.raises(PermissionError):
            await run(HandlerRunner(ASK, Answers(), interceptors=[Refusing(), Failing()]), Ask("why"))

    async def test_an_error_of_after_is_not_taken_for_one_of_the_handler(self) -> None:
        class Breaking(Interceptor):
            async def after(self, call: HandlerCall, result: Any) -> Any:
                raise ValueError("after")

            async def on_exception(self, call: HandlerCall, error: Exception) -> Exception:
                pytest.fail("the handler did not fail")

        with pytest.raises(ValueError, match="after"):
            await run(HandlerRunner(ASK, Answers(), interceptors=[Breaking()]), Ask("why"))

    async def test_kinds_limit_where_one_runs(self) -> None:
        class Limited(Interceptor):
            kinds = frozenset({HandlerKind.COMMAND})

            async def before(self, call: HandlerCall) -> None:
                pytest.fail("ran for a query")

        assert await run(HandlerRunner(ASK, Answers(), interceptors=[Limited()]), Ask("why")) == "why {'user': 'ann'}"

    async def test_cancelling_reaches_the_handler_and_is_no_error_of_it(self) -> None:
        entered = asyncio.Event()

        class Waiting(Interceptor):
            async def before(self, call: HandlerCall) -> None:
                entered.set()
                await asyncio.Event().wait()

            async def on_exception(self, call: HandlerCall, error: Exception) -> Exception:
                pytest.fail("cancelling is not an error of the handler")

        task = asyncio.create_task(run(HandlerRunner(ASK, Answers(), interceptors=[Waiting()]), Ask("why")))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestTracing:
    async def test_an_agent_wraps_the_handling(self) -> None:
        notes: list[str] = []

        class Agent(TracingAgent):
            async def track(
                self, message: Message[Any], handler: HandlerDefinition, proceed: Callable[[], Awaitable[Any]]
            ) -> Any:
                notes.append(f"{message.name} {handler.id} {handler.tracked}")
                try:
                    return await proceed()
                finally:
                    notes.append("done")

        answers = Answers()
        assert await run(HandlerRunner(ASK, answers, tracing=Agent()), Ask("why")) == "why {'user': 'ann'}"
        with pytest.raises(KeyError):
            await run(HandlerRunner(ASK, answers, tracing=Agent()), Ask("fail"))
        await run(HandlerRunner(ASK_PLAINLY, answers, tracing=Agent()), AskPlainly(""))
        assert notes == [
            "Ask Answers.ask False",
            "done",
            "Ask Answers.ask False",
            "done",
            "AskPlainly Answers.ask_plainly True",
            "done",
        ]

    async def test_the_default_agent_changes_nothing(self) -> None:
        agent = TracingAgent()
        metadata = Metadata({"user": "ann"})
        assert agent.correlate(metadata, None) is metadata
        assert await run(HandlerRunner(ASK, Answers(), tracing=agent), Ask("why")) == "why {'user': 'ann'}"

        async def proceed() -> str:
            return "done"

        message = handling_of(ASK, Ask("why")).message
        assert await agent.track(message, ASK, proceed) == "done"
