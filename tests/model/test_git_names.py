"""Refs and git URLs: what may be asked for, held against the real git."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.git_names import GitUrlPolicy, check_full_ref, check_ref
from tests.git_repositories import ENVIRONMENT

POLICY = GitUrlPolicy(("https://github.com/", "git://127.0.0.1:9418/"))

_PIECES = st.sampled_from(
    ["a", "B", "7", "main", "v19.2.0", "/", "//", ".", "..", "-", "_", "@", "{", "}", "@{", ".lock", "lock",
     "~", "^", ":", "?", "*", "[", "]", "\\", " ", "\t", "\n", "\x00", "\x7f", "\x1b", "é", "\u202e", "%", "#",
     "+", "=", ",", ";", "&", "|", "$", "`", "(", ")", "<", ">", '"', "'", "!", "HEAD", "refs/heads/", "-u"],
)  # fmt: skip


def git_takes(*arguments: str) -> bool:
    """Whether the real git takes a name."""
    return subprocess.run(
        ["git", "check-ref-format", *arguments], env=ENVIRONMENT, cwd="/", capture_output=True
    ).returncode == 0  # fmt: skip


@settings(max_examples=300)
@given(st.lists(_PIECES, min_size=1, max_size=6).map("".join) | st.text(max_size=12))
@example("a.lock/b")
@example("a/.b")
@example("@")
@example("a.")
@example("a@{b")
def test_what_we_take_git_takes(ref: str) -> None:
    """Whatever ref we accept, the real git accepts as a branch's and a tag's name."""
    try:
        assert check_ref(ref) == ref
    except ValueError:
        return
    assert git_takes(f"refs/heads/{ref}")
    assert git_takes(f"refs/tags/{ref}")
    assert ref == "HEAD" or git_takes("--branch", ref)


@pytest.mark.parametrize(
    "ref",
    ["main", "v19.2.0", "wip/foo", "wip-user-testing-2024-01-01-1234", "a/b/c", "x" * 200, "feature#1", "a@b", "a.b", "@a", "a{b}", "sha1", "ref+1", "user/wip_x=y,z"],
)  # fmt: skip
def test_names_that_people_use_are_taken(ref: str) -> None:
    """A branch's or tag's name as people give them is accepted unchanged, and is one for git as well."""
    assert check_ref(ref) == ref
    assert git_takes("--branch", ref)


@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        ("", "ref is empty"),
        ("x" * 201, "ref has 201 characters; at most 200 are taken"),
        ("a..b", "ref 'a..b' may not contain '..'"),
        ("../../etc", "ref '../../etc' may not contain '..'"),
        ("a b", "ref 'a b' may not contain ' '"),
        ("a\nb", "ref 'a\\nb' may not contain '\\n'"),
        ("main\n", "ref 'main\\n' may not contain '\\n'"),
        ("a\x00b", "ref 'a\\x00b' may not contain '\\x00'"),
        ("a\x1b[0m", "ref 'a\\x1b[0m' may not contain '\\x1b'"),
        ("a\x7f", "ref 'a\\x7f' may not contain '\\x7f'"),
        ("a~1", "ref 'a~1' may not contain '~'"),
        ("a^{}", "ref 'a^{}' may not contain '^'"),
        ("a:b", "ref 'a:b' may not contain ':'"),
        ("a?", "ref 'a?' may not contain '?'"),
        ("*", "ref '*' may not contain '*'"),
        ("a[b", "ref 'a[b' may not contain '['"),
        ("a\\b", "ref 'a\\\\b' may not contain '\\\\'"),
        ("a@{1}", "ref 'a@{1}' may not contain '@{'"),
        ("a//b", "ref 'a//b' may not contain '//'"),
        ("é", "ref 'é' may not contain 'é'"),
        ("-u", "ref '-u' may not start with - or /, nor end with / or ."),
        ("--upload-pack=touch", "ref '--upload-pack=touch' may not start with - or /, nor end with / or ."),
        ("/a", "ref '/a' may not start with - or /, nor end with / or ."),
        ("a/", "ref 'a/' may not start with - or /, nor end with / or ."),
        ("a.", "ref 'a.' may not start with - or /, nor end with / or ."),
        ("@", "ref '@' may not start with - or /, nor end with / or ."),
        (".a", "ref '.a' has a part that starts with . or ends with .lock"),
        ("a/.b", "ref 'a/.b' has a part that starts with . or ends with .lock"),
        ("a.lock", "ref 'a.lock' has a part that starts with . or ends with .lock"),
        ("a.lock/b", "ref 'a.lock/b' has a part that starts with . or ends with .lock"),
        ("refs/heads/main", "ref 'refs/heads/main' must be the short name, without refs/heads/ or refs/tags/"),
    ],
)  # fmt: skip
def test_other_names_get_a_sentence(ref: str, sentence: str) -> None:
    """A name that git refuses, or that could be taken for an option, is refused with what is wrong about it."""
    with pytest.raises(ValueError) as caught:
        check_ref(ref)
    assert str(caught.value) == sentence


def test_a_full_name_begins_with_refs() -> None:
    """A ref that is no branch and no tag is taken by its full name, which git takes as well."""
    assert check_full_ref("refs/pull/12/head") == "refs/pull/12/head"
    assert git_takes("refs/pull/12/head")
    for text, sentence in (("pull/12/head", "must begin with refs/"), ("refs/a..b", "may not contain '..'")):
        with pytest.raises(ValueError) as caught:
            check_full_ref(text)
        assert str(caught.value) == f"ref {text!r} {sentence}"


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/ceph/ceph.git",
        "https://github.com/some-user_1/ceph",
        "https://github.com/~user/ceph+x.git",
        "git://127.0.0.1:9418/ceph.git",
    ],
)
def test_forks_below_an_allowed_url_are_taken(url: str) -> None:
    """Any repository below an allowed URL may be asked for, and the URL is used as it was given."""
    assert POLICY.check(url) == url


MUST_BEGIN = "must begin with one of https://, http://, git://"
CREDENTIALS = "git_url may not carry credentials; packages are readable by anyone"
CHARACTERS = "may hold letters, digits and : / . _ ~ + - only"
ALLOWED = "is not below an allowed URL: https://github.com/, git://127.0.0.1:9418/"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "git_url is empty"),
        ("https://github.com/" + "a" * 482, "git_url has 501 characters; at most 500 are taken"),
        ("ext::sh -c touch% /tmp/x", f"git_url 'ext::sh -c touch% /tmp/x' {MUST_BEGIN}"),
        ("ext::https://github.com/x", f"git_url 'ext::https://github.com/x' {MUST_BEGIN}"),
        ("https::ext::sh", f"git_url 'https::ext::sh' {MUST_BEGIN}"),
        ("fd::17", f"git_url 'fd::17' {MUST_BEGIN}"),
        ("file:///etc", f"git_url 'file:///etc' {MUST_BEGIN}"),
        ("file:/etc", f"git_url 'file:/etc' {MUST_BEGIN}"),
        ("/etc", f"git_url '/etc' {MUST_BEGIN}"),
        ("../ceph.git", f"git_url '../ceph.git' {MUST_BEGIN}"),
        ("ftp://github.com/x", f"git_url 'ftp://github.com/x' {MUST_BEGIN}"),
        ("ssh://github.com/x", f"git_url 'ssh://github.com/x' {MUST_BEGIN}"),
        ("ssh://-oProxyCommand=touch/x", f"git_url 'ssh://-oProxyCommand=touch/x' {MUST_BEGIN}"),
        ("-u./evil", "git_url '-u./evil' may not start with -"),
        ("--upload-pack=touch /tmp/x", "git_url '--upload-pack=touch /tmp/x' may not start with -"),
        ("git@github.com:ceph/ceph.git", CREDENTIALS),
        ("https://user:password@github.com/x", CREDENTIALS),
        ("https://token@github.com/x", CREDENTIALS),
        ("https://github.com@evil.example/x", CREDENTIALS),
        ("https://:@github.com/x", CREDENTIALS),
        ("https://evil.example/ceph.git", f"git_url 'https://evil.example/ceph.git' {ALLOWED}"),
        ("https://github.com.evil.example/x", f"git_url 'https://github.com.evil.example/x' {ALLOWED}"),
        ("https://github.com:444/x", f"git_url 'https://github.com:444/x' {ALLOWED}"),
        ("http://github.com/x", f"git_url 'http://github.com/x' {ALLOWED}"),
        ("HTTPS://github.com/x", f"git_url 'HTTPS://github.com/x' {ALLOWED}"),
        ("https://GitHub.com/x", f"git_url 'https://GitHub.com/x' {ALLOWED}"),
        ("git://127.0.0.1:94180/x", "git_url 'git://127.0.0.1:94180/x' is not a URL: Port out of range 0-65535"),
        ("git://127.0.0.1:0/x", "git_url 'git://127.0.0.1:0/x' names no port that can be connected to"),
        ("https://[::1/x", "git_url 'https://[::1/x' is not a URL: Invalid IPv6 URL"),
        ("https:///ceph.git", "git_url 'https:///ceph.git' names no host"),
        ("https://-oProxyCommand/x", "git_url 'https://-oProxyCommand/x' names no host"),
        ("https://github.com/../x", "git_url 'https://github.com/../x' has a path with ., .. or a part that starts with -"),
        ("https://github.com/a/./x", "git_url 'https://github.com/a/./x' has a path with ., .. or a part that starts with -"),
        ("https://github.com/-x", "git_url 'https://github.com/-x' has a path with ., .. or a part that starts with -"),
        ("https://github.com/a b", f"git_url 'https://github.com/a b' {CHARACTERS}"),
        ("https://github.com/a\nb", f"git_url 'https://github.com/a\\nb' {CHARACTERS}"),
        ("https://github.com/a\n", f"git_url 'https://github.com/a\\n' {CHARACTERS}"),
        ("https://github.com/%2e%2e/x", f"git_url 'https://github.com/%2e%2e/x' {CHARACTERS}"),
        ("https://github.com/x?y=z", f"git_url 'https://github.com/x?y=z' {CHARACTERS}"),
        ("https://github.com/x#y", f"git_url 'https://github.com/x#y' {CHARACTERS}"),
        ("https://github.com/$(id)", f"git_url 'https://github.com/$(id)' {CHARACTERS}"),
        ("https://github.com/é", f"git_url 'https://github.com/é' {CHARACTERS}"),
    ],
)  # fmt: skip
def test_other_urls_get_a_sentence(url: str, sentence: str) -> None:
    """A URL that could run a program, read a file, leak a secret or reach another host is refused, and the sentence says why."""
    with pytest.raises(ValueError) as caught:
        POLICY.check(url)
    assert str(caught.value) == sentence


@settings(max_examples=300)
@given(
    st.text(max_size=40)
    | st.lists(_PIECES, max_size=5).map(lambda some: "https://github.com/" + "".join(some))
)
def test_what_is_taken_is_plain_and_allowed(url: str) -> None:
    """Of all texts, only those below an allowed URL and of plain characters pass; the rest raise ValueError and nothing else."""
    try:
        POLICY.check(url)
    except ValueError:
        return
    assert url.startswith(("https://github.com/", "git://127.0.0.1:9418/"))
    assert url.isascii()
    assert url.isprintable()
    assert not set(url) & set(" @%?#\\'\"$`;&|<>()[]{}*!,=^")
    assert ".." not in url.split("/")


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        ("https://github.com", "allowed git URL 'https://github.com' must end with /"),
        ("https://github.com/ceph", "allowed git URL 'https://github.com/ceph' must end with /"),
        ("file:///srv/git/", f"allowed git URL 'file:///srv/git/' {MUST_BEGIN}"),
        (
            "https://u:p@github.com/",
            "allowed git URL may not carry credentials; packages are readable by anyone",
        ),
        ("https:///", "allowed git URL 'https:///' names no host"),
        ("/", f"allowed git URL '/' {MUST_BEGIN}"),
    ],
)
def test_a_prefix_that_allows_more_than_it_seems_to_is_refused(prefix: str, sentence: str) -> None:
    """An operator's prefix must end with / (`https://github.com` would allow github.com.evil.example), and be a URL itself."""
    with pytest.raises(ValueError) as caught:
        GitUrlPolicy((prefix,))
    assert str(caught.value) == sentence
