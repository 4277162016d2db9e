"""The web UI as people meet it: the real Chromium, without a user and with one."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from selenium import webdriver
from selenium.common.exceptions import (
    StaleElementReferenceException,
    TimeoutException,
    WebDriverException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.git_repositories import commit, git, new_repository
from tests.integration.harness import DEB, RPM, Installation, installation
from tests.patience import SLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver.remote.webelement import WebElement

SHA1 = "249a5e70f3ca4bd8169fadb3f6027a577591b5b6"
"""The Ceph-shaped repository's `main`, the same on every machine."""

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-quic", "--no-proxy-server"),
]
"""As root in a container, and without a word to anybody but the master."""

FIELDS = {
    "ref": "Branch, tag or full sha1",
    "sha1": "Full sha1 (or fill in the field above)",
    "git_url": "Repository",
    "reason": "Reason (optional)",
}


class Browser:
    """A Chromium with a profile of its own, on the pages of one installation."""

    def __init__(self, driver: webdriver.Chrome, here: Installation, downloads: Path) -> None:
        self.driver = driver
        self.here = here
        self.downloads = downloads

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
        """Wait for a condition; what the page redraws meanwhile is looked at again."""
        seconds *= SLOW
        wait = WebDriverWait(self.driver, seconds, 0.1, ignored_exceptions=[StaleElementReferenceException])
        try:
            return wait.until(lambda _: condition())
        except TimeoutException:
            picture = self.downloads / "failed.png"
            self.driver.save_screenshot(str(picture))
            raise AssertionError(
                f"not within {seconds} s: {what}; {self.driver.current_url} reads {self.text!r}, see {picture}"
            ) from None

    def all(self, selector: str, within: WebElement | None = None) -> list[WebElement]:
        """Every element of a CSS selector that is there now."""
        return (within or self.driver).find_elements(By.CSS_SELECTOR, selector)

    @property
    def text(self) -> str:
        """What can be read on the page."""
        return "\n".join(element.text for element in self.all("body"))

    @property
    def route(self) -> str:
        """The page of the UI."""
        return self.driver.current_url.partition("#")[2]

    def click(self, selector: str, words: str) -> None:
        """Press what has these words."""

        def found() -> bool:
            elements = [one for one in self.all(selector) if one.text.strip() == words]
            if len(elements) == 1 and elements[0].is_displayed():
                elements[0].click()
                return True
            return False

        self.until(found, f"there is one {selector} that says {words!r}")

    def open(self, route: str) -> None:
        """Open a page of the UI."""
        self.driver.get(f"{self.here.url}#{route}")

    def log_in(self, secret: str) -> None:
        """Take the UI's own link; it asks for name and secret as HTTP does."""
        self.open("/builders")
        self.click("#bb-loginbar-dropdown", "Anonymous")
        [link] = self.until(lambda: self.all('a[href*="auth/login"]'), "there is a link to log in")
        assert link.text.strip() == "Login"
        address = str(link.get_attribute("href"))
        self.driver.get(address.replace("//", f"//operator:{secret}@", 1))
        self.until(lambda: self.all("#bb-loginbar-dropdown"), "the page is there again")

    @property
    def user(self) -> str:
        """Whom the UI takes the person for."""
        return self.until(lambda: self.all("#bb-loginbar-dropdown"), "the user is shown")[0].text

    def builder(self, name: str) -> str:
        """Go from the list of builders to one of them; give its route."""
        self.open("/builders")
        self.click("td a", name)
        self.until(lambda: self.route.startswith("/builders/"), f"the page of {name}")
        return self.route

    def form(self, name: str) -> None:
        """Open the form that asks a builder."""
        self.builder(name)
        self.click("button", "Ask for packages")
        self.until(lambda: len(self.all(".modal-body input")) == len(FIELDS), "the form is there")

    def fill(self, **fields: str) -> None:
        """Type over what is in some fields."""
        for field, text in fields.items():
            element = self.driver.find_element(By.ID, field)
            element.send_keys(Keys.CONTROL, "a")
            element.send_keys(Keys.BACKSPACE)
            element.send_keys(text)

    def values(self) -> dict[str, str | None]:
        """What is in the form's fields."""
        return {
            str(one.get_attribute("id")): one.get_attribute("value") for one in self.all(".modal-body input")
        }

    def sentences(self) -> dict[str, str]:
        """What is said beside each field."""
        said = {}
        for group in self.all(".modal-body .form-group"):
            for sentence in self.all(".bb-force-build-modal-field-error", group):
                said[str(self.all("input", group)[0].get_attribute("id"))] = sentence.text
        return said

    def ask(self) -> None:
        """Send the form."""
        self.click(".modal-footer button", "Start build")

    def landed(self) -> str:
        """Where a request led to: the route of a build."""
        self.until(lambda: "/builds/" in self.route, "the page of a build")
        return self.route


def session(leader: int) -> list[int]:
    """Give the processes of a session that are still there."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                state = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and os.getsid(int(entry)) == leader:
                    found.append(int(entry))
    return found


@contextmanager
def chromium(here: Installation, directory: Path) -> Iterator[Browser]:
    """Give a browser with a fresh profile; its processes are gone after, whatever happens."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in [*FLAGS, f"--user-data-dir={directory / 'profile'}"]:
        options.add_argument(flag)
    downloads = directory / "downloads"
    downloads.mkdir()
    service = Service(
        "/usr/bin/chromedriver",
        log_output=str(directory / "chromedriver.log"),
        popen_kw={"start_new_session": True},
    )
    driver = None
    try:
        driver = webdriver.Chrome(service=service, options=options)
        driver.set_page_load_timeout(30 * SLOW)
        driver.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)}
        )
        yield Browser(driver, here, downloads)
    finally:
        process = service.process
        if driver is not None:
            with contextlib.suppress(WebDriverException, OSError):
                driver.quit()
        if process is not None:
            for pid in session(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(10)
            here.until(lambda: not session(process.pid), "the browser's processes are gone")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running master that nobody has asked for anything."""
    with installation(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture(scope="module")
def stranger(here: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser of somebody who never logs in."""
    with chromium(here, tmp_path_factory.mktemp("stranger")) as browser:
        yield browser


@pytest.fixture(scope="module")
def operator(here: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser of the operator, logged in."""
    with chromium(here, tmp_path_factory.mktemp("operator")) as browser:
        browser.log_in(here.token)
        yield browser


@pytest.fixture(scope="module")
def built(here: Installation, operator: Browser) -> str:
    """The route that a request for `main` led to, its build successful."""
    operator.form(RPM)
    operator.fill(ref="main", reason="a new test")
    operator.ask()
    route = operator.landed()
    [request] = here.get("buildrequests")["buildrequests"]
    done = here.wait({"buildrequest_ids": {"": request["buildrequestid"]}})
    assert done["results"] == 0, here.get("builds")
    return route


def test_a_stranger_reads_the_builders(stranger: Browser) -> None:
    """The targets that are on, with what they are, are there without a user."""
    stranger.builder(RPM)
    stranger.until(
        lambda: "Ceph packages for CentOS Stream 9, x86_64, flavor default" in stranger.text,
        "the builder's description",
    )
    stranger.open("/builders")
    stranger.until(
        lambda: [link.text for link in stranger.all("td:first-child a")] == [DEB, RPM],
        "both targets are listed",
    )
    assert stranger.user == "Anonymous"


def test_asking_without_a_user_says_what_to_do(here: Installation, stranger: Browser) -> None:
    """The sentence is in the form, what was typed stays, and nothing is queued."""
    stranger.form(RPM)
    stranger.fill(ref="main")
    stranger.ask()
    stranger.until(lambda: stranger.all(".modal-body .alert"), "the form says something")
    assert stranger.all(".modal-body .alert")[0].text.startswith("asking needs a user: log in, or ")
    assert stranger.values()["ref"] == "main"
    assert here.get("buildrequests")["buildrequests"] == []


def test_a_wrong_secret_logs_nobody_in(here: Installation, tmp_path: Path) -> None:
    """The answer is HTTP's own, and the person stays a stranger."""
    answer = requests.get(f"{here.url}auth/login", auth=("operator", "wrong"), timeout=30)
    assert answer.status_code == 401
    assert "TWISTED_SESSION" not in answer.cookies


def test_logging_in_leads_back(operator: Browser) -> None:
    """The operator is known by name, on the page where the login began."""
    operator.open("/builders")
    operator.driver.refresh()
    assert operator.user == "operator"


def test_the_form_has_the_fields_that_mean_something(here: Installation, operator: Browser) -> None:
    """Nothing of Buildbot's own fields is there; the default repository is filled in."""
    operator.form(RPM)
    labels = {one.get_attribute("for"): one.text for one in operator.all(".modal-body label")}
    assert labels == FIELDS
    assert operator.values() == {"ref": "", "sha1": "", "git_url": here.git_url, "reason": ""}
    assert operator.all(".modal-title")[0].text == "Ask for packages of a commit"


@pytest.mark.parametrize(
    ("typed", "sentences"),
    [
        ({"sha1": SHA1[:39]}, {"sha1": f"sha1 '{SHA1[:39]}' has 39 hex digits; a full one has 40"}),
        (
            {"ref": "main", "git_url": "https://example.org/ceph.git"},
            {"git_url": "git_url 'https://example.org/ceph.git' is not below an allowed URL: git://@"},
        ),
        ({"ref": "no-such"}, {"ref": "git://@ceph.git has no branch or tag 'no-such'"}),
        ({"ref": "main", "sha1": SHA1}, {"ref": "give sha1 or ref, not both"}),
        ({}, {"sha1": "give a sha1, or a ref to be resolved to one"}),
    ],
    ids=["sha1", "git_url", "ref", "both", "none"],
)
def test_a_mistake_is_named_beside_its_field(
    here: Installation, operator: Browser, typed: dict[str, str], sentences: dict[str, str]
) -> None:
    """Each wrong field has its sentence, no other has one, and nothing that was typed is lost."""
    before = here.get("buildrequests")["buildrequests"]
    operator.form(RPM)
    operator.fill(**typed, reason="a new test")
    operator.ask()
    operator.until(operator.sentences, "the form says something")
    at = f"127.0.0.1:{here.git_port}/"
    assert operator.sentences() == {field: text.replace("@", at) for field, text in sentences.items()}
    empty = {"ref": "", "sha1": "", "git_url": here.git_url}
    assert operator.values() == {**empty, **typed, "reason": "a new test"}
    assert here.get("buildrequests")["buildrequests"] == before


def test_a_right_ref_lands_on_its_build(here: Installation, operator: Browser, built: str) -> None:
    """The form leads to the build of the commit that the branch pointed to."""
    [build] = here.get("builds?property=revision&property=reason")["builds"]
    assert built == f"/builders/{build['builderid']}/builds/{build['number']}"
    assert build["properties"]["revision"][0] == SHA1
    assert build["properties"]["reason"][0] == "a new test"


@pytest.mark.parametrize("typed", [{"sha1": SHA1}, {"ref": "main"}], ids=["sha1", "ref"])
def test_asking_again_lands_on_the_build_that_made_it(
    here: Installation, operator: Browser, built: str, typed: dict[str, str]
) -> None:
    """What is published is not built again, and its build is where the form leads to."""
    operator.form(RPM)
    operator.fill(**typed)
    operator.ask()
    assert operator.landed() == built
    assert len(here.get("builds")["builds"]) == 1
    assert len(here.get("buildrequests")["buildrequests"]) == 1


def test_a_stranger_reads_the_builds(stranger: Browser, built: str) -> None:
    """The builder's page lists the build with its commit, who asked, and how it ended."""
    stranger.builder(RPM)
    stranger.until(lambda: SHA1 in stranger.text, "the build is listed")
    [row] = [one.text for one in stranger.all("tbody tr") if SHA1 in one.text]
    assert "main (1)" in row
    assert "operator" in row


def test_the_build_says_what_it_did(stranger: Browser, built: str) -> None:
    """Every step has its words, in order, and the last one leads to the packages."""
    stranger.open(built)
    stranger.until(lambda: "SUCCESS" in stranger.text, "the build's end")
    stranger.until(lambda: stranger.all('a[target="_blank"]'), "there is a link to the packages")
    told = [
        re.fullmatch(r"(?:#\n)?\s*(\d+)\s+(.+)\n(?:\d+ s|\d+:\d\d) (.+?)(\n.*)?", one.text.strip())
        for one in stranger.all(".bb-build-summary-step-line")
    ]
    assert None not in told, [one.text for one in stranger.all(".bb-build-summary-step-line")]
    said = {one[2]: one[3] for one in told if one}
    assert list(said) == [
        *("worker_preparation", "machine", "checkout", "version", "dependencies"),
        *("tarball", "packages", "upload", "publish"),
    ]
    assert said["machine"].endswith("a stand-in: debian bookworm with rpmbuild and el9 macros, for centos9")
    assert said["checkout"] == f"checked out {SHA1}"
    assert said["version"] == "version 19.2.0-3-g249a5e70"
    assert said["packages"] == "4 packages built"
    assert re.fullmatch(r"uploaded \d+ files, \d+ bytes", said["upload"])
    assert said["publish"] == "published"


def test_no_words_of_a_step_lie_over_others(stranger: Browser, built: str) -> None:
    """A step's line is as wide as its words need, also in a narrow window."""
    stranger.driver.set_window_size(1000, 900)
    try:
        stranger.open(built)
        stranger.until(lambda: "SUCCESS" in stranger.text, "the build's end")
        wide = stranger.driver.execute_script(
            "return [...document.querySelectorAll('li.list-group-item, li.list-group-item *')]"
            ".filter(one => one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0)"
            ".map(one => one.innerText)"
        )
        assert wide == []
    finally:
        stranger.driver.set_window_size(1280, 900)


def test_the_packages_can_be_read_and_taken(here: Installation, stranger: Browser, built: str) -> None:
    """The link opens a list with its own style, which a click goes through down to a download."""
    driver = stranger.driver
    stranger.open(built)
    page = driver.current_window_handle
    stranger.click('a[target="_blank"]', "packages")
    try:
        stranger.until(lambda: len(driver.window_handles) == 2, "a tab with the packages")
        [other] = set(driver.window_handles) - {page}
        driver.switch_to.window(other)
        root = f"{here.packages_url}{RPM}/sha1/{SHA1}/"
        stranger.until(lambda: stranger.all("td a"), "the list is there")
        assert driver.current_url == root
        names = [one.text for one in stranger.all("td a")]
        assert names == ["../", "SRPMS/", "noarch/", "x86_64/", "manifest.json", "sha1", "version"]
        assert stranger.all("h1")[0].value_of_css_property("font-size") == "18.75px"
        stranger.click("td a", "version")
        stranger.until(lambda: stranger.text == "19.2.0-3.g249a5e70", "the version is shown")
        driver.back()
        stranger.click("td a", "noarch/")
        name = "python3-ceph-argparse-19.2.0-3.g249a5e70.el9.noarch.rpm"
        stranger.click("td a", name)
        taken = stranger.downloads / name
        published = (here.packages / RPM / "sha1" / SHA1 / "noarch" / name).read_bytes()
        stranger.until(lambda: taken.is_file() and taken.read_bytes() == published, f"{name} is downloaded")
    finally:
        if driver.current_window_handle != page:
            driver.close()
        driver.switch_to.window(page)


def test_what_is_published_cannot_take_the_session(here: Installation, operator: Browser, built: str) -> None:
    """Cookies ignore ports, so pages of the package server have no origin that could read them."""
    driver = operator.driver
    operator.open(built)
    assert "TWISTED_SESSION" in str(driver.get_cookies())
    driver.get(f"{here.packages_url}{RPM}/sha1/{SHA1}/")
    with pytest.raises(WebDriverException, match="document is sandboxed"):
        driver.execute_script("return document.cookie")


MARKUP = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"


def test_c16_markup_of_a_build_is_text(here: Installation, stranger: Browser) -> None:
    """Markup in a request's reason, a build's sentence and its log is shown as it is, on every page that shows it."""
    repository = new_repository(here.input / "mallory/ceph.git")
    commit(repository, MARKUP, {".gitmodules": ""})
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{SHA1},{MARKUP}")
    git(repository, "commit", "--quiet", "-m", MARKUP)
    fork = here.git_url.replace("/ceph.git", "/mallory/ceph.git")
    answer = here.ask(DEB, ref="main", git_url=fork, reason=MARKUP)
    assert here.wait(answer)["results"] == 2
    [build] = here.builds(answer)
    assert MARKUP in build["state_string"]
    page = f"/builders/{build['builderid']}/builds/{build['number']}"
    step = here.steps(build)["checkout"]["number"]
    [request] = answer["buildrequest_ids"].values()
    for route in (
        page,
        f"{page}/steps/{step}/logs/stdio",
        f"/buildrequests/{request}",
        f"/builders/{build['builderid']}",
        "/",
    ):
        stranger.open(route)
        stranger.driver.refresh()
        if route != "/":
            stranger.until(
                lambda: "onerror" in stranger.text or "mallory" in stranger.text, f"{route} shows it"
            )
        assert stranger.all("img[src='x']") == [], route
        assert not [one for one in stranger.all("script") if "broken" in str(one.get_attribute("text"))], (
            route
        )
        assert stranger.driver.title != "broken", route
