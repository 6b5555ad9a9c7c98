"""A Ray cluster of several nodes on this machine: starts it, says so in a line of JSON, ends it when stdin ends."""
import json
import sys

from ray.cluster_utils import Cluster

cluster = Cluster()
for node in json.loads(sys.argv[1]):
    cluster.add_node(**node)
nodes = [node.unique_id for node in cluster.list_all_nodes()]
print(json.dumps({"gcs": cluster.address, "nodes": nodes}), flush=True)
sys.stdin.read()
cluster.shutdown()
