"""A preload of Dask: importing it has ``tcp://`` and ``tls://`` use shared memory within one place.

For each process of the cluster: ``dask scheduler --preload sharedmem.dask.preload``, ``dask worker --preload
sharedmem.dask.preload ...``, and in clients ``import sharedmem.dask.preload`` before they connect; or in the
configuration of Dask as ``distributed.scheduler.preload``, ``distributed.worker.preload``,
``distributed.nanny.preload`` and ``distributed.client.preload``.
"""

from sharedmem.dask import install

install()
