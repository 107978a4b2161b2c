"""The sagas of a tenure: what has changed is seen before it is stored, and what is known stays true."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evento.consumers import ConsumerId
from evento.consumers.port import SagaChange, StoredSaga
from evento.consumers.saga_changes import MAX_KNOWN, MAX_KNOWN_BYTES, SagaChanges

CONSUMER = ConsumerId("b", "c", 1, "*")


class Rows:
    """The rows of a consumer state store: it applies changes, and counts what it is asked."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}
        self.owners: dict[str, str] = {}
        self.asked = 0

    async def find_saga(self, consumer: ConsumerId, association: str) -> StoredSaga | None:
        self.asked += 1
        owner = self.owners.get(association)
        return None if owner is None else StoredSaga(owner, self.states[owner])

    def write(self, changes: list[SagaChange]) -> None:
        for change in changes:
            for association in change.removed:
                assert self.owners.pop(association) == change.id
        for change in changes:
            for association in change.added:
                assert association not in self.owners
                self.owners[association] = change.id
            if change.state is None:
                self.states.pop(change.id, None)
            else:
                self.states[change.id] = change.state


def sagas_on(rows: Rows) -> SagaChanges:
    return SagaChanges(rows, CONSUMER)  # type: ignore[arg-type]


async def test_what_was_read_or_written_is_not_read_again() -> None:
    rows = Rows()
    sagas = sagas_on(rows)
    assert await sagas.find("a") is None
    sagas.put("1", b"x", before=frozenset(), after=frozenset({"a", "b"}))
    rows.write(sagas.pending)
    sagas.committed()
    assert sagas.pending == []
    assert await sagas.find("a") == await sagas.find("b") == StoredSaga("1", b"x")
    assert rows.asked == 1


async def test_large_states_are_not_kept() -> None:
    rows = Rows()
    sagas = sagas_on(rows)
    large = b"x" * (MAX_KNOWN_BYTES + 1)
    sagas.put("1", large, before=frozenset(), after=frozenset({"a"}))
    rows.write(sagas.pending)
    sagas.committed()
    assert await sagas.find("a") == await sagas.find("a") == StoredSaga("1", large)
    assert rows.asked == 2


async def test_of_many_associations_those_last_used_are_kept() -> None:
    rows = Rows()
    sagas = sagas_on(rows)
    for number in range(MAX_KNOWN):
        await sagas.find(str(number))
    await sagas.find("0")
    await sagas.find("one more")
    assert rows.asked == MAX_KNOWN + 1
    await sagas.find("0")
    assert rows.asked == MAX_KNOWN + 1
    await sagas.find("1")
    assert rows.asked == MAX_KNOWN + 2


async def test_what_is_dropped_never_was() -> None:
    rows = Rows()
    sagas = sagas_on(rows)
    sagas.put("1", b"x", before=frozenset(), after=frozenset({"a"}))
    sagas.drop()
    assert sagas.pending == []
    assert await sagas.find("a") is None


NAMES = st.sampled_from("abcdef")
STEPS = st.lists(
    st.tuples(st.sampled_from(["change", "change", "end", "commit", "crash"]), NAMES, st.frozensets(NAMES, max_size=3))
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
async def test_whatever_happens_an_association_finds_the_saga_that_has_it(
    steps: list[tuple[str, str, frozenset[str]]],
) -> None:
    rows = Rows()
    sagas = sagas_on(rows)
    model: dict[str, tuple[bytes, frozenset[str]]] = {}
    committed = dict(model)
    for number, (step, name, names) in enumerate(steps):
        if step == "commit":
            rows.write(sagas.pending)
            sagas.committed()
            committed = dict(model)
        elif step == "crash":
            sagas.drop()
            model = dict(committed)
        else:
            found = await sagas.find(name)
            id = str(number) if found is None else found.id
            before = frozenset() if found is None else model[id][1]
            taken = {one for other, (_, has) in model.items() if other != id for one in has}
            after = (names | {name}) - taken
            if step == "end" and found is not None:
                sagas.remove(id, before=before)
                del model[id]
            elif step == "change" and after:
                model[id] = (b"%d" % number, after)
                sagas.put(id, model[id][0], before=before, after=after)
        for one in "abcdef":
            expected = next((StoredSaga(id, state) for id, (state, has) in model.items() if one in has), None)
            assert await sagas.find(one) == expected
