"""Stories: scenarios that spend most of their time waiting, told side by side and then judged one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from tests.flow.driver import Deployment

Deploy = Callable[..., Deployment]
Story = Callable[[Deploy], Awaitable[None]]
Endings = dict[Story, BaseException | None]


def told(stories: Sequence[Story], deploy: Deploy) -> Endings:
    """How each story ended: None is well."""

    async def tell_all() -> Endings:
        return dict(zip(stories, await asyncio.gather(*(ending(story, deploy) for story in stories)), strict=True))

    return asyncio.run(tell_all())


async def ending(story: Story, deploy: Deploy) -> BaseException | None:
    """How one story ended."""
    try:
        await story(deploy)
    except (Exception, pytest.fail.Exception, pytest.skip.Exception) as failure:  # noqa: BLE001 - raised again by `judge`
        return failure
    return None


def judge(endings: Endings, story: Story) -> None:
    """Raise what a story raised."""
    failure = endings[story]
    if failure is not None:
        raise failure


def title(value: Any) -> str:
    """A story's name as words."""
    return str(value.__name__).replace("_", " ")
