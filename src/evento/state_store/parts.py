"""Reading a story of any length, part by part."""

from __future__ import annotations

from collections.abc import AsyncIterator

from evento.state_store.port import MAX_READ_BYTES, StateStore, Story

__all__ = ["story_parts"]


async def story_parts(
    store: StateStore,
    aggregate_id: str,
    *,
    boundary: str | None = None,
    fingerprint: str | None = None,
    after_version: int = 0,
    max_bytes: int = MAX_READ_BYTES,
) -> AsyncIterator[Story]:
    """Yield the parts of a story, each beginning after the one before; the last one tells the story's versions.

    Each part is of an instant of its own, and yet they make the story of the last one's instant: a stored event never
    changes and versions have no gaps, so the events of former parts are those that one read at the end would have
    returned, and the last part's events reach the ``version`` that stands beside them, with ``boundary_version`` and
    ``deleted_at`` of the same instant. Decide on those of the last part, never on those of a former one.

    What happens in between does no harm. Events that are stored meanwhile are in a later part. A snapshot that is
    written meanwhile is not looked at: it would repeat what was told. A deletion shows in the next part, also when a
    purge followed, which leaves the deleting event and its version: look at each part's ``deleted_at``, for behind a
    purge the parts have a gap. A decision that others overtake after the last part is refused by the versions, as ever.
    """
    while True:
        story = await store.story(
            aggregate_id,
            boundary=boundary,
            fingerprint=fingerprint,
            after_version=after_version,
            max_bytes=max_bytes,
        )
        yield story
        if not story.is_cut:
            return
        fingerprint, after_version = None, story.told
