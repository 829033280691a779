"""Hosts asked over SSH: the one place that knows paramiko.

What `ssh HOST` would do is `ssh_config`'s to say, which host keys are known is `ssh_trust`'s.
"""

import base64
import binascii
import contextlib
import hmac
import logging
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import cast

import paramiko

from audit.text import visible
from audit.transports import Answers, Asked, Connection, Secret
from audit.transports.shell import CHUNK, Conversation, Deadline, Round
from audit.transports.ssh_config import CONNECT_SECONDS, SshError, Target, last_hop, resolve
from audit.transports.ssh_trust import known_keys, unknown_key

_KEYBOARD = {"password", "keyboard-interactive"}

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its tracebacks are our sentences


class Ssh:
    """The SSH side of a run: what all its connections share, that is the jump hosts and the answers to prompts."""

    def __init__(self, secret: Secret | None = None, config: Path | None = None) -> None:
        self._secret = secret
        self._config = config
        self._jumps: dict[str, _Jump] = {}
        self._lock = Lock()
        self._open: set[paramiko.Transport] = set()

    def to(self, connection: Connection) -> "SshTransport":
        """The way to one host; nothing is opened yet."""
        return SshTransport(self, connection)

    def close(self) -> None:
        """Close every connection, also those that other threads are using."""
        with self._lock:
            transports, self._open = self._open, set()
            self._jumps.clear()
        for transport in transports:
            transport.close()

    def login(self, connection: Connection, deadline: Deadline, behind: tuple[str, ...] = ()) -> paramiko.Transport:
        """An authenticated connection, needed for the jumps in `behind`. Raises `SshError`, `TimeoutError`."""
        target = resolve(connection, self._config)
        transport = paramiko.Transport(self._socket(target, deadline, behind))
        with self._lock:
            self._open.add(transport)
        try:
            _shake_hands(transport, target, deadline)
            _Login(transport, target, self._secret, deadline).run()
        except BaseException:
            self.drop(transport)
            raise
        return transport

    def drop(self, transport: paramiko.Transport) -> None:
        """Close one connection; what the other side thinks of that does not matter any more."""
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            transport.close()
        with self._lock:
            self._open.discard(transport)

    def _socket(self, target: Target, deadline: Deadline, behind: tuple[str, ...]) -> socket.socket | paramiko.Channel:
        where = f"{target.hostname} port {target.port}"
        try:
            if target.jump:
                return self._through(target, deadline, behind)
            if target.proxy_command:
                return paramiko.ProxyCommand(f"sh -c {shlex.quote('exec ' + target.proxy_command)}")  # type: ignore[return-value]
            sock = socket.create_connection((target.hostname, target.port), min(CONNECT_SECONDS, deadline.left()))
        except socket.gaierror as error:
            raise SshError(f"{(error.strerror or 'name not resolved').lower()}: {target.hostname}") from error
        except TimeoutError as error:
            raise SshError(f"no answer from {where} within {min(CONNECT_SECONDS, deadline.seconds):g} s") from error
        except ConnectionRefusedError as error:
            raise SshError(f"connection refused by {where}") from error
        except OSError as error:
            raise SshError(f"{_words(error).lower()}: {where}") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _through(self, target: Target, deadline: Deadline, behind: tuple[str, ...]) -> paramiko.Channel:
        """A channel to the target through its jump host, whose connection all hosts behind it share."""
        if target.jump in behind:
            raise SshError(f"ProxyJump goes round in a circle: {' behind '.join((*behind, target.jump))}")
        with self._lock:
            jump = self._jumps.setdefault(target.jump, _Jump())
        via, connection = last_hop(target.jump)
        with jump.held(deadline):
            if jump.transport is None or not jump.transport.is_active():
                if jump.problem:
                    raise SshError(jump.problem)
                try:
                    jump.transport = self.login(connection, deadline, (*behind, target.jump))
                except (SshError, TimeoutError) as error:
                    jump.problem = f"jump host {via}: {error}"
                    raise SshError(jump.problem) from error
        try:
            channel = jump.transport.open_channel(
                "direct-tcpip", (target.hostname, target.port), ("127.0.0.1", 0), timeout=deadline.left()
            )
            return cast(paramiko.Channel, _Tunnel(channel))
        except paramiko.ChannelException as error:
            reason = f"{target.hostname} port {target.port}: {visible(error.text, 200).lower()}"
            raise SshError(f"jump host {via}: {reason}") from error
        except (paramiko.SSHException, EOFError) as error:
            raise SshError(f"jump host {via}: {_words(error)}") from error


class _Tunnel:
    """A channel in place of a socket: nothing is sent after it is closed.

    paramiko may send a message that it has begun after another thread's close; sshd then hangs up on the whole
    connection ("data packet referred to nonexistent channel"), and so on all hosts behind that jump.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._lock = Lock()

    def send(self, data: bytes) -> int:
        """As `Channel.send`."""
        with self._lock:
            return self._channel.send(data)

    def close(self) -> None:
        """As `Channel.close`, but not amid a `send`."""
        with self._lock:
            self._channel.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._channel, name)


@dataclass(slots=True)
class _Jump:
    transport: paramiko.Transport | None = None
    problem: str = ""
    _lock: Lock = field(default_factory=Lock)

    @contextlib.contextmanager
    def held(self, deadline: Deadline) -> Iterator[None]:
        """One login at a time. Waiting for another's, which may have to prompt, does not count."""
        began = time.monotonic()
        if not self._lock.acquire(timeout=deadline.left()):
            raise TimeoutError(deadline.problem)
        deadline.extend(time.monotonic() - began)
        try:
            yield
        finally:
            self._lock.release()


class SshTransport:
    """One host over SSH: a connection and an exec for each time it is asked."""

    def __init__(self, ssh: Ssh, connection: Connection) -> None:
        self._ssh = ssh
        self._connection = connection

    def ask(self, asked: Sequence[Asked], seconds: float, connected: Callable[[], None]) -> Answers:
        """See `Transport.ask`."""
        deadline = Deadline(seconds)
        try:
            transport = self._ssh.login(self._connection, deadline)
        except (SshError, TimeoutError) as error:
            return Answers(problem=f"ssh: {error}")
        try:
            connected()
            return self._ask(transport, Round(asked, self._connection.sudo), deadline)
        finally:
            self._ssh.drop(transport)

    def _ask(self, transport: paramiko.Transport, this: Round, deadline: Deadline) -> Answers:
        try:
            channel = transport.open_session(timeout=deadline.left())
            channel.exec_command(this.command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            return Answers(problem=f"ssh: logged in, but no command can be run: {_words(error)}")

        def feed() -> None:
            channel.sendall(this.input)
            channel.shutdown_write()

        said = Conversation(feed, lambda: channel.recv(CHUNK), lambda: channel.recv_stderr(CHUNK)).hold(deadline)
        return this.answers(*said)


def _shake_hands(transport: paramiko.Transport, target: Target, deadline: Deadline) -> None:
    """Agree on keys, and see that the host's is a known one."""
    known = known_keys(target.known_hosts, target.known_as)
    options = transport.get_security_options()
    types = {known_type for key in known for known_type in _algorithms(key.type)}
    # A host has keys of several types: ask for one that we know.
    options.key_types = tuple(sorted(options.key_types, key=lambda kind: kind not in types))
    transport.banner_timeout = transport.auth_timeout = deadline.left()
    try:
        transport.start_client(timeout=deadline.left())
        deadline.left()
        key = transport.get_remote_server_key()
    except (paramiko.SSHException, OSError, EOFError) as error:
        deadline.left()
        raise SshError(f"{target.hostname} port {target.port}: {_words(error)}") from error
    if not any(hmac.compare_digest(key.asbytes(), each.blob) for each in known):
        raise SshError(unknown_key(key.get_name(), key.asbytes(), known, target))


def _algorithms(key_type: str) -> tuple[str, ...]:
    return ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa") if key_type == "ssh-rsa" else (key_type,)


class _Login:
    """One login: the keys that there are, then a password if the host takes one and somebody can be asked."""

    def __init__(
        self, transport: paramiko.Transport, target: Target, secret: Secret | None, deadline: Deadline
    ) -> None:
        self._transport = transport
        self._target = target
        self._secret = secret
        self._deadline = deadline
        self._tried: list[str] = []
        self._offered: set[bytes] = set()

    def run(self) -> None:
        """Log in. Raises `SshError`, `TimeoutError`."""
        try:
            methods = self._methods()
            if methods and "publickey" in methods:
                methods = self._with_keys(methods)
            if methods and _KEYBOARD & set(methods):
                methods = self._with_password(methods)
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._deadline.left()
            raise SshError(f"{self._failure()}: {_words(error)}") from error
        if not self._transport.is_authenticated():
            takes = ", ".join(methods or ())
            raise SshError(f"{self._failure()}; it takes: {visible(takes, 100)}")

    def _failure(self) -> str:
        tried = ", ".join(self._tried) or "nothing to try"
        return f"authentication failed for user {self._target.user} (tried: {tried})"

    def _methods(self) -> list[str]:
        """What the host takes; nothing more to do when it takes the user as he comes."""
        try:
            return self._transport.auth_none(self._target.user)
        except paramiko.BadAuthenticationType as error:
            return list(error.allowed_types)

    def _with_keys(self, methods: list[str]) -> list[str]:
        """What is still asked for after the first key that the host takes, or `methods` if it takes none."""
        for label, key in self._keys():
            self._deadline.left()
            self._tried.append(label)
            self._offered.add(key.asbytes())
            try:
                return self._transport.auth_publickey(self._target.user, key)
            except paramiko.BadAuthenticationType as error:
                return list(error.allowed_types)
            except paramiko.AuthenticationException:
                if not self._transport.is_active():
                    raise
        return methods

    def _keys(self) -> Iterator[tuple[str, paramiko.PKey]]:
        """The inventory's key file, the agent's keys, then the key files of the ssh configuration."""
        target = self._target
        own = target.identity_file
        if own:
            if not Path(own).is_file():
                raise SshError(f"identity file {own}: no such file")
            yield from self._from_file(own)
        with contextlib.closing(paramiko.Agent()) as agent:
            wanted = {_public_blob(file) for file in target.identity_files}
            for key in agent.get_keys():
                if not target.identities_only or key.asbytes() in wanted:
                    yield "agent", key
        for file in target.identity_files:
            if file != own and Path(file).is_file():
                yield from self._from_file(file)

    def _from_file(self, file: str) -> Iterator[tuple[str, paramiko.PKey]]:
        if _public_blob(file) in self._offered:
            return
        try:
            try:
                key = _key(file, None)
            except paramiko.PasswordRequiredException:
                phrase = self._asked(f"Passphrase of {file}")
                if not phrase:
                    self._tried.append(f"{file} (encrypted, no passphrase given)")
                    return
                key = _key(file, phrase)
        except (paramiko.SSHException, OSError, ValueError) as error:
            self._tried.append(f"{file} ({_words(error)})")
            return
        if key.asbytes() not in self._offered:
            yield file, key

    def _with_password(self, methods: list[str]) -> list[str]:
        password = self._asked(f"Password of {self._target.user}")
        if not password:
            return methods
        self._tried.append("password")
        try:
            return self._transport.auth_password(self._target.user, password)
        except paramiko.BadAuthenticationType as error:
            return list(error.allowed_types)
        except paramiko.AuthenticationException:
            return methods

    def _asked(self, prompt: str) -> str | None:
        began = time.monotonic()
        answer = self._secret(prompt) if self._secret else None
        self._deadline.extend(time.monotonic() - began)
        return answer


def _key(file: str, phrase: str | None) -> paramiko.PKey:
    kinds: tuple[type[paramiko.PKey], ...] = (paramiko.Ed25519Key, paramiko.RSAKey, paramiko.ECDSAKey)
    for kind in kinds:
        try:
            return kind.from_private_key_file(file, phrase)
        except paramiko.PasswordRequiredException:
            raise
        except (paramiko.SSHException, ValueError, IndexError):
            continue
    raise paramiko.SSHException("wrong passphrase" if phrase else "not a private key of a known type")


def _public_blob(file: str) -> bytes | None:
    """The public half beside a private key file, if it is there."""
    try:
        return base64.b64decode(Path(f"{file}.pub").read_text("utf-8", "replace").split()[1])
    except (OSError, IndexError, binascii.Error):
        return None


def _words(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "connection closed by the other side"
    return visible(str(getattr(error, "strerror", None) or error) or type(error).__name__, 200)
