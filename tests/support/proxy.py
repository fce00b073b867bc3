"""A TCP proxy that can be cut, to simulate a failing network between a client and the daemon.

Cutting resets every open connection. While the proxy is cut, it resets every new connection at once.
"""

import socket
import struct
import threading

RESET = struct.pack("ii", 1, 0)  # SO_LINGER on with 0 s, so that close sends a reset


class Proxy:
    def __init__(self, upstream):
        host, _, port = upstream.rpartition(":")
        self.upstream = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock, self.open, self.is_cut = threading.Lock(), set(), False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        with self.lock:
            self.is_cut = True
            sockets, self.open = self.open, set()
        for one in sockets:
            reset(one)

    def release(self):
        with self.lock:
            self.is_cut = False

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            try:
                with self.lock:
                    refused = self.is_cut
                    if not refused:
                        server = socket.create_connection(self.upstream, timeout=5)
                        server.settimeout(None)
                        self.open |= {client, server}
            except OSError:
                refused = True
            if refused:
                reset(client)
                continue
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            with self.lock:
                self.open -= {source, target}
            for one in (source, target):
                reset(one)


def reset(one):
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    one.close()
