"""Every error that upwell raises."""

from __future__ import annotations

from upwell.core.errors import *  # noqa: F403  # the one list of those that any part may raise
from upwell.core.keys_kinds import HashError as HashError
from upwell.core.packing_kinds import DeserializationError as DeserializationError
from upwell.core.results import ResultDamaged as ResultDamaged
from upwell.core.results import ResultExpired as ResultExpired
from upwell.core.results import ResultNotFound as ResultNotFound
from upwell.core.results import ResultNotTrusted as ResultNotTrusted
from upwell.core.results import ResultStorageError as ResultStorageError
from upwell.core.storage_keys import InvalidStorageKeyError as InvalidStorageKeyError
from upwell.journal.database import StoreDamaged as StoreDamaged
from upwell.journal.database import StoreError as StoreError
from upwell.journal.database import StoreRefuses as StoreRefuses
from upwell.journal.database import StoreSlow as StoreSlow
from upwell.journal.database import StoreTooNew as StoreTooNew
from upwell.journal.database import StoreUnavailable as StoreUnavailable
from upwell.journal.store import ProcessLost as ProcessLost
from upwell.serializers import UnknownSerializerError as UnknownSerializerError
