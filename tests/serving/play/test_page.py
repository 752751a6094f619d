import base64
import hashlib
import re

from serving.play.page import headers, page


def test_the_security_policy_has_the_digests_of_the_style_and_script() -> None:
    policy = dict(headers())[b"content-security-policy"].decode()
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page().decode(), flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy


def test_the_page_refers_to_nothing_outside_itself() -> None:
    addresses = re.findall(r"""(?:src|href|url|import|https?:)[=(:]["']?([^"')\s>]+)""", page().decode())
    assert {address for address in addresses if "w3.org/2000/svg" not in address} <= {"data:,", "//www.w3.org/2000/svg"}
