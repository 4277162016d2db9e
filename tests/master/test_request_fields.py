"""A request's fields: what is wanted, or a sentence beside each field that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from master.requests.fields import Refused, Wanted, parse
from model.git_names import GitUrlPolicy
from model.targets import Target

SHA1 = "0123456789abcdef0123456789abcdef01234567"
DEB = "ceph-deb-jammy-x86_64-default"
RPM = "ceph-rpm-centos9-x86_64-default"
TARGETS = {name: Target.from_name(name) for name in (DEB, RPM)}
CEPH = "https://github.com/ceph/ceph.git"
ISCSI = "https://github.com/ceph/ceph-iscsi.git"
URLS = {"ceph": CEPH, "ceph-iscsi": ISCSI}
BUILDERS = {1: DEB, 2: RPM, 3: "ceph-deb-noble-x86_64-default"}
GOOD = {"builderNames": [DEB], "sha1": SHA1}

FULL_NAMES: list[dict[str, str]] = yaml.safe_load(
    (Path(__file__).parents[1] / "contract" / "ref_names.yaml").read_text()
)

THERE_ARE = "builderNames, builderid, sha1, ref, git_url, reason, job, good_machine, min_machine"
ON = f"{DEB}, {RPM}"


def ask(**params: Any) -> Wanted:
    """Have a request read on a master with two targets on, and a third builder that is off."""
    return parse(params, TARGETS, BUILDERS.get, GitUrlPolicy(("https://github.com/",)), URLS)


def refused(**params: Any) -> dict[str, str]:
    """Give the sentences about a request."""
    with pytest.raises(Refused) as caught:
        ask(**params)
    assert str(caught.value) == "; ".join(
        f"{field}: {text}" for field, text in caught.value.sentences.items()
    )
    return caught.value.sentences


def test_a_sha1_of_one_target_is_enough() -> None:
    """A target and a sha1 are a request; the repository is the default one."""
    assert ask(builderNames=[DEB], sha1=SHA1) == Wanted((TARGETS[DEB],), SHA1, "", CEPH, "")


def test_the_repository_is_that_of_the_targets_project() -> None:
    """Without a git_url the project's own is taken; targets of two projects have none in common."""
    name = "ceph-iscsi-rpm-centos9-x86_64-default"
    targets = {**TARGETS, name: Target.from_name(name)}
    policy = GitUrlPolicy(("https://github.com/",))

    def read(**params: Any) -> Wanted:
        return parse({"sha1": SHA1, **params}, targets, BUILDERS.get, policy, URLS)

    assert read(builderNames=[name]).git_url == ISCSI
    assert read(builderNames=[DEB, RPM]).git_url == CEPH
    assert (
        read(builderNames=[DEB, name], git_url="https://github.com/me/x").git_url == "https://github.com/me/x"
    )
    with pytest.raises(Refused) as caught:
        read(builderNames=[DEB, name])
    assert caught.value.sentences == {
        "git_url": "name one, or ask for one project at a time, not for ceph, ceph-iscsi"
    }


def test_everything_can_be_said() -> None:
    """Several targets, a ref, a fork and a reason are taken as they were given, each target once."""
    wanted = ask(
        builderNames=[RPM, DEB, RPM],
        ref="wip/foo",
        git_url="https://github.com/me/ceph",
        reason="I want it: ünïcode",
        job="run/17",
        good_machine={"disk": 100, "cpus": 16},
        min_machine=None,
    )
    assert wanted == Wanted(
        (TARGETS[RPM], TARGETS[DEB]),
        "",
        "wip/foo",
        "https://github.com/me/ceph",
        "I want it: ünïcode",
        "run/17",
        {"good_machine": {"disk": 100, "cpus": 16}},
        commit_field="ref",
    )


def test_refusals_of_a_commit_stand_beside_its_field() -> None:
    """A full sha1 may be in either field."""
    sha1 = "0123456789" * 4
    for field in ("sha1", "ref"):
        wanted = ask(builderNames=[DEB], **{field: sha1})
        assert (wanted.sha1, wanted.ref, wanted.commit_field) == (sha1, "", field)


@pytest.mark.parametrize("builderid", [2, "2"])
def test_the_web_form_names_the_builder_by_its_number(builderid: object) -> None:
    """A builder's number, as the form sends it, stands for its target; empty fields of the form are as good as none."""
    assert ask(builderid=builderid, sha1=SHA1, ref="", git_url="", reason="", builderNames=[]) == Wanted(
        (TARGETS[RPM],), SHA1, "", CEPH, ""
    )


def test_what_was_pasted_with_spaces_is_read_without() -> None:
    """Spaces around a pasted value don't count."""
    assert ask(builderNames=[DEB], sha1=f" {SHA1} ", git_url=f"{CEPH} ", reason="  why ") == Wanted(
        (TARGETS[DEB],), SHA1, "", CEPH, "why"
    )


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("sha1", 7, "must be a string, not a number"),
        ("sha1", None, "must be a string, not null"),
        ("sha1", [SHA1], "must be a string, not a list"),
        ("ref", {"a": 1}, "must be a string, not an object"),
        ("ref", True, "must be a string, not true or false"),
        ("git_url", 1.5, "must be a string, not a number"),
        ("reason", ["a"], "must be a string, not a list"),
        ("builderNames", DEB, "must be a list of strings, not str"),
        ("builderNames", {DEB: 1}, "must be a list of strings, not an object"),
        ("builderNames", [DEB, 7], "must be a list of strings, not a list"),
        ("builderNames", [[DEB]], "must be a list of strings, not a list"),
        ("builderNames", ["ceph-deb-jessie-x86_64-default"], f"'ceph-deb-jessie-x86_64-default' is not a target that is on; there are {ON}"),
        ("builderNames", ["ceph-deb-noble-x86_64-default"], f"'ceph-deb-noble-x86_64-default' is not a target that is on; there are {ON}"),
        ("builderNames", [DEB, "janitor"], f"'janitor' is not a target that is on; there are {ON}"),
        ("builderNames", [DEB + " "], f"'{DEB} ' is not a target that is on; there are {ON}"),
        ("builderNames", ["x" * 1000], f"{'x' * 100!r} is not a target that is on; there are {ON}"),
        ("sha1", SHA1[:39], "sha1 '0123456789abcdef0123456789abcdef0123456' has 39 hex digits; a full one has 40"),
        ("sha1", SHA1.upper(), "sha1 '0123456789ABCDEF0123456789ABCDEF01234567' must be lower case"),
        ("sha1", "HEAD", "sha1 'HEAD' must be 40 lower-case hex digits"),
        ("sha1", SHA1 + "\n", "sha1 '0123456789abcdef0123456789abcdef01234567\\n' must be 40 lower-case hex digits"),
        ("git_url", "ext::sh -c touch% /tmp/x", "git_url 'ext::sh -c touch% /tmp/x' must begin with one of https://, http://, git://"),
        ("git_url", "file:///etc", "git_url 'file:///etc' must begin with one of https://, http://, git://"),
        ("git_url", "-u./evil", "git_url '-u./evil' may not start with -"),
        ("git_url", "ssh://-oProxyCommand=id/x", "git_url 'ssh://-oProxyCommand=id/x' must begin with one of https://, http://, git://"),
        ("git_url", "https://me:secret@github.com/x", "git_url may not carry credentials; packages are readable by anyone"),
        ("git_url", "git@github.com:ceph/ceph", "git_url may not carry credentials; packages are readable by anyone"),
        ("git_url", "https://evil.example/x", "git_url 'https://evil.example/x' is not below an allowed URL: https://github.com/"),
        ("git_url", "https://github.com/x\ny", "git_url 'https://github.com/x\\ny' may hold letters, digits and : / . _ ~ + - only"),
        ("job", "a\nb", "may not contain control characters"),
        ("good_machine", {"disk": "40"}, "disk must be a whole number from 0 to 100000"),
        ("good_machine", {"ram": -1}, "ram must be a whole number from 0 to 100000000"),
        ("good_machine", {"cpus": True}, "cpus must be a whole number from 0 to 10000"),
        ("min_machine", {"gpus": 1}, "has no 'gpus'; there are disk, ram, cpus"),
        ("min_machine", 7, "must be an object with disk, ram, cpus, not a number"),
        ("reason", "x" * 501, "has 501 characters; at most 500 are taken"),
        ("reason", "a\x1b[2Jb", "may not contain control characters"),
        ("reason", "a\u202eb", "may not contain control characters"),
        ("revision", "x", f"unknown parameter; there are {THERE_ARE}"),
        ("force_build", True, f"unknown parameter; there are {THERE_ARE}"),
        ("owner", "root", f"unknown parameter; there are {THERE_ARE}"),
        ("", "x", f"unknown parameter; there are {THERE_ARE}"),
    ],
)  # fmt: skip
def test_each_wrong_field_has_its_sentence(field: str, value: object, sentence: str) -> None:
    """One wrong field is one sentence, beside that field, though all else is right."""
    assert refused(**{**GOOD, field: value})[field] == sentence


def test_only_the_wrong_field_is_named() -> None:
    """Of a request with one wrong field, the others are not complained about."""
    assert list(refused(**GOOD, git_url="file:///etc")) == ["git_url"]
    assert list(refused(builderNames=["x"], sha1=SHA1)) == ["builderNames"]
    assert list(refused(builderNames=[DEB], sha1=SHA1[:39])) == ["sha1"]
    assert list(refused(**GOOD, branch="main")) == ["branch"]


@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        ("a..b", "ref 'a..b' may not contain '..'"),
        ("a\tb", "ref 'a\\tb' may not contain '\\t'"),
        ("main\n", "ref 'main\\n' may not contain '\\n'"),
        ("a\x00", "ref 'a\\x00' may not contain '\\x00'"),
        ("-u", "ref '-u' may not start with - or /, nor end with / or ."),
        (
            "refs/heads/refs/tags/v1",
            "ref 'refs/tags/v1' must be the short name, without refs/heads/ or refs/tags/",
        ),
        ("refs/pull/../x", "ref 'refs/pull/../x' may not contain '..'"),
        ("refs/", "ref 'refs/' may not start with - or /, nor end with / or ."),
        ("refs/tags/", "ref 'refs/tags/' may not start with - or /, nor end with / or ."),
        ("refs/heads/a..b", "ref 'a..b' may not contain '..'"),
    ],
)
def test_a_ref_that_git_could_not_have_is_refused(ref: str, sentence: str) -> None:
    """A ref that is none, or looks like an option, is refused before anybody is asked for it."""
    assert refused(builderNames=[DEB], ref=ref) == {"ref": sentence}


@pytest.mark.parametrize(
    "builderid",
    [True, False, -1, 10**18, 10**5000, 1.0, 1.5, float("nan"), [1], {"id": 1}, "", " 1", "1 ", "+1", "-1", "1e3", "0x1", "²", "१", "\uff11", "x", DEB],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_builders_number_is_digits(builderid: object) -> None:
    """A builderid is a number of plain digits: no other type, sign, space or script passes for one."""
    assert refused(builderid=builderid, sha1=SHA1) == {"builderid": "must be a builder's number"}


@pytest.mark.parametrize(
    ("builderid", "said"),
    [(0, "0"), (3, "3"), (4, "4"), ("3", "3"), ("9" * 5000, "9" * 18)],
    ids=["zero", "off", "none", "off-text", "long-text"],
)
def test_a_number_of_another_builder_is_refused(builderid: object, said: str) -> None:
    """A number that no builder has, or one that is no target that is on, is refused however long it is."""
    assert refused(builderid=builderid, sha1=SHA1) == {
        "builderid": f"{said} is not the number of a target that is on"
    }


@pytest.mark.parametrize("builderid", [1111111111111111111, "1111111111111111111"])
def test_a_long_number_is_never_cut_to_another(builderid: object) -> None:
    """A number that is too long for a builder's is nobody's, and its beginning is not taken for it."""
    names = {111111111111111111: DEB}
    with pytest.raises(Refused) as caught:
        parse({"builderid": builderid, "sha1": SHA1}, TARGETS, names.get, GitUrlPolicy(()), URLS)
    assert list(caught.value.sentences) == ["builderid"]


def test_a_target_must_be_named() -> None:
    """Without a target, or with an empty list, the sentence says which there are."""
    sentence = {"builderNames": f"name at least one target of {ON}"}
    assert refused(sha1=SHA1) == sentence
    assert refused(sha1=SHA1, builderNames=[]) == sentence
    assert refused(sha1=SHA1, builderNames=None, builderid=None) == sentence


def test_a_commit_must_be_named_in_one_way() -> None:
    """Neither sha1 nor ref is refused, and so are both: which one was meant cannot be known."""
    assert refused(builderNames=[DEB]) == {"sha1": "give a sha1, or a ref to be resolved to one"}
    assert refused(builderNames=[DEB], sha1=" ") == {"sha1": "give a sha1, or a ref to be resolved to one"}
    assert refused(builderNames=[DEB], sha1=SHA1, ref="main") == {"ref": "give sha1 or ref, not both"}


def test_d7_a_ref_of_the_wrong_type_is_not_called_missing() -> None:
    """Only the field that is wrong gets a sentence."""
    assert refused(builderNames=[DEB], ref=7) == {"ref": "must be a string, not a number"}


def test_all_wrong_fields_are_told_at_once() -> None:
    """A request with mistakes in every field is answered with a sentence for every field."""
    assert refused(
        builderNames=["x"], sha1="abc", ref="a..b", git_url="-u", reason=7, job=8, extra=1, min_machine=[]
    ) == {
        "builderNames": f"'x' is not a target that is on; there are {ON}",
        "sha1": "sha1 'abc' has 3 hex digits; a full one has 40",
        "ref": "ref 'a..b' may not contain '..'",
        "git_url": "git_url '-u' may not start with -",
        "reason": "must be a string, not a number",
        "job": "must be a string, not a number",
        "min_machine": "must be an object with disk, ram, cpus, not a list",
        "extra": f"unknown parameter; there are {THERE_ARE}",
    }


def test_an_unknown_parameter_is_not_repeated_at_length() -> None:
    """Of a parameter with an endless name, the answer repeats a hundred characters."""
    assert list(refused(**GOOD, **{"y" * 10_000: 1})) == ["y" * 100]


_FIELDS = st.sampled_from(
    ["builderNames", "builderid", "sha1", "ref", "git_url", "reason", "job", "min_machine"]
)
_TEXTS = st.text(max_size=12) | st.sampled_from(
    [SHA1, DEB, CEPH, "main", "-u", "ext::x", "\ud800", "1", "\uff19"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=500)
@given(st.dictionaries(_FIELDS | _TEXTS, _JSON, max_size=6))
def test_any_json_is_a_request_or_is_refused(params: dict[str, Any]) -> None:
    """Whatever JSON object is sent, it is a request that holds only what is allowed, or Refused with sentences: nothing else escapes."""
    try:
        wanted = ask(**params)
    except Refused as refused:
        assert refused.sentences
        assert all(isinstance(text, str) and text for text in refused.sentences.values())
        return
    assert set(wanted.targets) <= set(TARGETS.values())
    assert wanted.targets
    assert bool(wanted.sha1) != bool(wanted.ref)
    assert wanted.git_url.startswith("https://github.com/")


@given(sha1=_JSON, ref=_JSON, git_url=_JSON, builderid=_JSON, names=_JSON)
def test_any_value_of_any_field_is_taken_or_refused(
    sha1: Any, ref: Any, git_url: Any, builderid: Any, names: Any
) -> None:
    """With every field at any JSON value, the outcome is a request or Refused."""
    try:
        ask(sha1=sha1, ref=ref, git_url=git_url, builderid=builderid, builderNames=names)
    except Refused as refused:
        assert refused.sentences


@pytest.mark.parametrize("row", FULL_NAMES, ids=lambda row: row["ref"])
def test_full_names_of_refs(row: dict[str, str]) -> None:
    """git's own name of a branch or a tag says which of them is meant; the short one is what all goes on with."""
    wanted = ask(builderNames=[DEB], ref=row["ref"])
    assert (wanted.ref, wanted.ref_kind) == (row["name"], "" if row["kind"] == "ref" else row["kind"])


def test_a_full_name_of_another_kind_is_taken_as_it_is() -> None:
    """A ref that is no branch and no tag, such as a pull request's, is looked for by the name that it has."""
    wanted = ask(builderNames=[DEB], ref="refs/pull/12/head")
    assert (wanted.ref, wanted.ref_kind) == ("refs/pull/12/head", "ref")


def test_a_sha1_in_the_field_for_a_ref_is_a_sha1() -> None:
    """A full sha1 in the field `ref` is a commit, unless the field `sha1` is filled in, too."""
    wanted = ask(builderNames=[DEB], ref=f" {SHA1}")
    assert (wanted.sha1, wanted.ref, wanted.ref_kind) == (SHA1, "", "")
    assert ask(builderNames=[DEB], ref=f"refs/heads/{SHA1}").ref == SHA1
    assert refused(builderNames=[DEB], ref=SHA1, sha1=SHA1) == {"ref": "give sha1 or ref, not both"}
    assert refused(builderNames=[DEB], ref=SHA1.upper()) == {
        "ref": f"sha1 {SHA1.upper()!r} must be lower case"
    }
