"""How many connections a server may have, on a machine that permits more than it gives."""

import subprocess
import sys

import pytest

FEW, PERMITTED = 256, 1000
CODE = """
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, ({few}, {permitted}))
from inference.listening import listen
with listen("127.0.0.1", 0, "FISHSERVE_PORT") as listening:
    clients = [socket.create_connection(listening.getsockname()) for _ in range({clients})]
    print(len([listening.accept() for _ in clients]))
"""


@pytest.mark.parametrize("clients", [FEW // 4, FEW])
def test_clients_may_have_as_many_connections_as_the_machine_permits(clients):
    code = CODE.format(few=FEW, permitted=PERMITTED, clients=clients)  # both ends of each are here
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(clients), done.stderr
