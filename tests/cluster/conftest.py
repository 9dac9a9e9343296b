"""A Ray cluster of two nodes on this machine."""

import contextlib
import os
import sys

import pytest


@contextlib.contextmanager
def nodes(count=2):
    """A cluster with so many nodes of one core each, besides the head, which carries out nothing."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # nodes import the functions of tests
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        try:
            yield cluster, [cluster.add_node(num_cpus=1, **small) for _ in range(count)]
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def two_nodes():
    """The cluster and its nodes. This process stays connected, so that nodes keep their processes between tests."""
    ray = pytest.importorskip("ray")
    with nodes() as (cluster, found):
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster, found
        ray.shutdown()
