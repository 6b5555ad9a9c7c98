"""A Ray cluster of several nodes on this machine: starts it, says so in a line of JSON, ends it when stdin ends."""
import json
import socket
import sys
import time

from ray.cluster_utils import Cluster

cluster = Cluster()
options = json.loads(sys.argv[1])
for node in options:
    cluster.add_node(**node)
# What prepares the nodes for a session may come up after them.
for port in [options[0]["ray_client_server_port"], *(node["runtime_env_agent_port"] for node in options)]:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
print(json.dumps({"gcs": cluster.address}), flush=True)
sys.stdin.read()
cluster.shutdown()
