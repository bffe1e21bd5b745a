"""`Control` over a SQL database: deployments, schedules, jobs, pools and keys as rows. Each part has a file."""

from __future__ import annotations

from upwell.journal.api_keys import SqlKeys
from upwell.journal.bulk import SqlBulk
from upwell.journal.deployments import SqlDeployments
from upwell.journal.upkeep import SqlUpkeep
from upwell.journal.work_pools import SqlPools


class SqlControl(SqlDeployments, SqlBulk, SqlUpkeep, SqlPools, SqlKeys):
    """All of it, over one database that is open and of this version's schema."""


__all__ = ["SqlControl"]
