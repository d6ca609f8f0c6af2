"""Bounded work and job graphs inside one program: pools, graphs of jobs, fan-out and fan-in, wait groups."""

from __future__ import annotations

from ..backoff import Backoff as Backoff
from ..errors import NotReady as NotReady
from .fanout import as_completed as as_completed
from .fanout import first as first
from .fanout import gather as gather
from .fanout import map as map
from .job import Job as Job
from .job import JobCancelled as JobCancelled
from .job import JobEnded as JobEnded
from .job import JobError as JobError
from .job import JobEvent as JobEvent
from .job import JobFailed as JobFailed
from .job import JobNotReady as JobNotReady
from .job import JobSkipped as JobSkipped
from .job import JobSpec as JobSpec
from .job import JobStarted as JobStarted
from .job import JobTimeout as JobTimeout
from .job import Status as Status
from .job import all_done as all_done
from .job import all_ok as all_ok
from .job import job as job
from .job import ready_if as ready_if
from .jobs import Jobs as Jobs
from .jobs import run_jobs as run_jobs
from .pool import Pool as Pool
from .pool import open_pool as open_pool
from .report import Front as Front
from .report import Report as Report
from .submitting import PoolClosed as PoolClosed
from .waitgroup import WaitGroup as WaitGroup
