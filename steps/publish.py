"""Steps from built packages to published ones: upload, publish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from buildbot.process.buildstep import BuildStep
from buildbot.process.results import FAILURE, SUCCESS

from model.package_key import PackageKey
from steps import commands
from steps.script import Script

if TYPE_CHECKING:
    from steps.commands import Command


class Upload(Protocol):
    """What the steps need of an upload."""

    token: str


class Publisher(Protocol):
    """What the steps need of the master's publisher; it is the service named `publisher`."""

    async def published_url(self, key: str) -> str:
        """Give where the package_key is published, or nothing."""

    async def open_upload(self, key: PackageKey, build_id: int) -> Upload:
        """Return a place to upload to, with a token for this key. It is closed when the build ends."""

    def upload_of(self, build_id: int) -> Upload | None:
        """Return the open upload of a build."""

    async def close_upload(self, upload: Upload) -> None:
        """Forget the token, and whatever was uploaded and not published."""

    async def publish(self, upload: Upload, record: dict[str, Any]) -> str:
        """Make the metadata, verify, sign and publish; return the URL, or raise ValueError with a sentence."""


class UploadPackages(Script):
    """Uploads packages and sources into staging, from which nothing is served."""

    name = "upload"
    doing = "uploading the packages"

    def __init__(self, upload_url: str, **kwargs: Any) -> None:
        """Take the URL, as workers reach it, that uploads go to."""
        super().__init__(**kwargs)
        self._upload_url = upload_url
        self._upload: Upload | None = None

    def compose(self) -> Command:
        """Upload what the step `packages` left."""
        described = str(self.getProperty("version"))
        return commands.upload(
            self.key,
            self._upload_url,
            commands.published_version(self.key.target, described),
            list(self.getProperty("packages")),
        )

    def environment(self) -> dict[str, str]:
        """Hand over the token where no log shows it."""
        assert self._upload is not None
        return {"UPLOAD_TOKEN": self._upload.token}

    async def run(self) -> int:
        """Open the upload, and leave it open for the step that publishes."""
        assert self.build is not None
        self._upload = await _publisher(self).open_upload(self.key, self.build.buildid)
        return await super().run()

    def finish(self) -> str:
        """Say how much it was."""
        return f"uploaded {self.output.values['uploaded']}"


class Publish(BuildStep):
    """Publishes what was uploaded, all of it or nothing; runs always, to clean up."""

    name = "publish"
    haltOnFailure = True
    flunkOnFailure = True
    alwaysRun = True

    async def run(self) -> int:
        """Make the repository on the master, verify and sign it. The sentence of a refusal becomes the build's."""
        assert self.build is not None
        assert self.master is not None
        publisher = _publisher(self)
        upload = publisher.upload_of(self.build.buildid)
        if upload is None:
            self.descriptionDone = "nothing was uploaded"
            return int(SUCCESS)
        try:
            if self.build.results != SUCCESS:
                self.descriptionDone = "nothing is published of a failed build"
                return int(SUCCESS)
            url = await publisher.publish(upload, await self._record())
        except (ValueError, OSError) as error:
            self.descriptionDone = f"Publishing failed: {getattr(error, 'strerror', None) or error}"
            return int(FAILURE)
        finally:
            await publisher.close_upload(upload)
        await self.addURL("packages", url)
        verified = bool(self.getProperty("reachable_from"))
        self.descriptionDone = "published" if verified else "published; the commit is unverified"
        return int(SUCCESS)

    def getCurrentSummary(self) -> dict[str, str]:
        """Return the summary of the running step."""
        return {"step": "making the repository, signing and publishing it"}

    def getResultSummary(self) -> dict[str, str]:
        """Say that it was published, or the refusal."""
        sentence = str(self.descriptionDone or self.name)
        return {"step": sentence} if self.results == SUCCESS else {"step": sentence, "build": sentence}

    async def _record(self) -> dict[str, Any]:
        assert self.build is not None
        request = self.build.requests[0]
        target = PackageKey.from_string(str(self.getProperty("package_key"))).target
        described = str(self.getProperty("version"))
        return {
            "version": commands.published_version(target, described),
            "git_url": self.getProperty("git_url"),
            "recipe": self.getProperty("recipe"),
            "ref": self.getProperty("linked_ref") or "",
            "reachable_from": self.getProperty("reachable_from") or None,
            "buildset_id": request.bsid,
            "buildrequest_id": request.id,
            "build_url": await self.build.getUrl(),
        }


def _publisher(step: BuildStep) -> Publisher:
    assert step.master is not None
    service: Publisher = step.master.service_manager.namedServices["publisher"]
    return service
