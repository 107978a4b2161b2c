"""The counts of instances, which nobody waits for when the database does not answer."""

from __future__ import annotations

import asyncpg
import pytest
from waiting import eventually

from evento.messages.registration import BundleDescription, Register
from evento.server.instances import InstanceCount
from evento.server.registry import RegistryDatabase
from evento.server.telemetry import Instances, Telemetry


@pytest.fixture
def postgres_url(postgres_database: str) -> str:
    return postgres_database.replace("+asyncpg", "")


async def test_a_database_that_does_not_answer_holds_up_no_count(postgres_url: str) -> None:
    telemetry = Telemetry()
    async with (
        RegistryDatabase(postgres_url, cluster="shop", timeout=300) as registry,
        InstanceCount(registry, telemetry) as count,
    ):
        await registry.register(Register(BundleDescription("orders"), "1"))
        holder = await asyncpg.connect(postgres_url)
        try:
            async with holder.transaction():
                await holder.execute("LOCK TABLE evento_registry_instance")
                await count.refresh()
                await count.refresh()
                assert telemetry.instances == {}
        finally:
            await holder.close()

        await eventually(lambda: telemetry.instances == {"orders": Instances(1, 0)})


async def test_leaving_ends_a_count_that_waits(postgres_url: str) -> None:
    async with RegistryDatabase(postgres_url, cluster="shop", timeout=300) as registry:
        holder = await asyncpg.connect(postgres_url)
        try:
            async with holder.transaction():
                await holder.execute("LOCK TABLE evento_registry_instance")
                async with InstanceCount(registry, Telemetry()) as count:
                    await count.refresh()
        finally:
            await holder.close()
