"""Decides which HTTP proxy a request passes: the one that environment variables name, and none to this machine.

The variables are `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in lower or upper case. It uses the standard
library only.
"""

import os
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1", "[::1]")
"""This machine in `no_proxy`, in the notations of urllib, requests and gRPC."""


def bypass_loopback() -> None:
    """Have all libraries in this process and its children connect to this machine without a proxy."""
    hosts = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(",")
    known = [host.strip() for host in hosts if host.strip()]
    if "*" not in known:
        known += [host for host in LOOPBACK if host not in known]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(known)


def proxy_of(url: str) -> str | None:
    """Return the URL of the proxy through which requests to `url` pass, None if they are sent directly."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    bypassed = proxies.get("no", "").split(",")
    if _is_loopback(host) or any(_contains(network.strip(), host) for network in bypassed):
        return None
    if proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


def through_proxy(url: str, reason: str) -> str:
    """Return the reason of a failed request to `url`, with the proxy that it passed, if any."""
    proxy = proxy_of(url)
    return reason if proxy is None else f"{reason}, through the proxy {proxy}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _contains(network: str, host: str) -> bool:
    """Return whether an entry of `no_proxy` is a network, such as 10.0.0.0/8, that contains the host."""
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False
