"""Every error that upwell raises, in families by who must act: your code, your configuration, the runtime, limits."""

from __future__ import annotations


class UpwellError(Exception):
    """The base of everything that upwell raises on its own behalf."""


# --- Your code: a call or a definition that cannot work ---------------------------------------------------


class DefinitionError(UpwellError):
    """A flow or task is declared in a way that cannot work; raised at decoration."""


class ReservedArgumentError(DefinitionError, ValueError):
    """A flow or task has a parameter whose name upwell needs for itself."""


class InvalidNameError(DefinitionError, ValueError):
    """A name holds a character that may not be part of a name."""


class FlowVisualizationError(UpwellError, AttributeError):
    """What a flow would start cannot be found out without running its tasks.

    It is an AttributeError for those who ask a result that is not known whether it has an attribute.
    """


class ParameterBindError(UpwellError, TypeError):
    """The arguments of a call do not fit the function's signature."""


class ParameterTypeError(UpwellError, TypeError):
    """Arguments fit the signature, but not the annotations; lists every bad parameter."""


class MappingLengthMismatch(UpwellError, ValueError):
    """`.map` was given iterables of different lengths."""


class MappingMissingIterable(UpwellError, ValueError):
    """`.map` was given nothing to map over."""


class DependencyCycleError(UpwellError, ValueError):
    """A task run would wait, directly or through others, for itself."""


class BlockingWaitError(UpwellError, RuntimeError):
    """A blocking wait on the event loop's own thread, which could never end."""


class DurableKeyError(UpwellError, TypeError):
    """A task of a durable flow was called with something by which the call cannot be known again in another process."""


class MissingContextError(UpwellError, RuntimeError):
    """Something that only means something inside a run was used outside of one."""


# --- Your configuration ------------------------------------------------------------------------------------


class ConfigurationError(UpwellError, ValueError):
    """An option or a setting has a value that cannot work."""


class UnknownTaskRunnerError(ConfigurationError):
    """No task runner of this name is installed."""


class WrongAddressError(ConfigurationError):
    """What answers at the address of a server is none of upwell's, or nothing can."""


class MissingExtraError(ConfigurationError, ImportError):
    """A feature needs a package that is not installed; the message names the extra."""


class SourceError(UpwellError):
    """The code of a deployment could not be had: its repository, its branch, what is to be done before its runs."""


# --- The runtime: an operation came at the wrong time or place ----------------------------------------------


class RuntimeClosedError(UpwellError, RuntimeError):
    """Work was handed to a runtime or a flow run that has ended."""


class NotFoundError(UpwellError, LookupError):
    """What was asked for by its name or id is not in the store."""


class UnknownRunError(NotFoundError):
    """There is no run of this id in the store."""


class InvalidRequestError(UpwellError, ValueError):
    """What was asked for cannot be: a parameter does not fit, a schedule cannot be read."""


class ConflictError(UpwellError, RuntimeError):
    """What was asked for does not go with what is: the run has ended, the name is taken."""


class AccessError(UpwellError, PermissionError):
    """The server does not know the key, or the key may not do this."""


class NotResumableError(UpwellError, RuntimeError):
    """This run cannot be resumed: it is not durable, has ended, or is at work."""


class ForeignFutureError(UpwellError, RuntimeError):
    """A future of one runtime was given to another that cannot wait for it."""


class InternalError(UpwellError):
    """A fault in upwell itself; please report it."""


# --- How a run ended, for those who ask for its result ------------------------------------------------------


class RunOutcomeError(UpwellError):
    """A run ended without a result."""


class FailedRun(RunOutcomeError):
    """A run failed and no exception of the user's says why."""


class CrashedRun(RunOutcomeError):
    """What executed a run went away before the run could end: a process died, a thread was lost."""


class CancelledRun(RunOutcomeError):
    """A run was cancelled."""


class PausedRun(RunOutcomeError):
    """A run is paused and has no result yet."""


class UnfinishedRun(RunOutcomeError):
    """A run has not ended, or could not begin, so it has no result."""


class NotReadyRun(UnfinishedRun):
    """A run never began, because another that it depends on did not complete."""


class MissingResult(RunOutcomeError):
    """A run completed, but its result was not kept."""


class RunTimeoutError(UpwellError, TimeoutError):
    """A run took longer than its `timeout_seconds`."""


class TaskRunTimeoutError(RunTimeoutError):
    """A task run took longer than its `timeout_seconds`."""


class FlowRunTimeoutError(RunTimeoutError):
    """A flow run took longer than its `timeout_seconds`."""


# --- Limits --------------------------------------------------------------------------------------------------


class ConcurrencySlotAcquisitionError(UpwellError):
    """A slot of a concurrency limit could not be had at all."""


class AcquireConcurrencySlotTimeoutError(ConcurrencySlotAcquisitionError, TimeoutError):
    """A slot of a concurrency limit did not become free in time."""


# --- Values that have to cross a boundary --------------------------------------------------------------------


class SerializationError(UpwellError, ValueError):
    """A value cannot be turned into bytes, or bytes cannot be turned back into a value."""
