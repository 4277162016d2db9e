"""nova's driver of the lab: everything above it is real, and a server is a process that runs its user data.

It stands on the in-memory hypervisor that nova ships for its own tests, and adds the processes.
The image says what a server runs in: its property `lab_root` names a prepared root.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

from nova import exception, objects
from nova.compute import power_state, task_states
from nova.image import glance
from nova.virt import event, fake, hardware

from lab.inside.knobs import Knobs
from lab.inside.machine import Machine

LAB = Path(os.environ["BUILDPACKAGES_LAB"])
_LAYERS, _CHANGES = "lab-layers", "changes"
"""In the directory of a snapshot: the directories that it is made of, and the uppermost of them."""

_LOOK_EVERY = 0.2
"""Seconds between two looks at whether a server that hangs shall go on."""


class ProcessDriver(fake.FakeDriverWithoutFakeNodes):
    """A host with room for more servers than the machine can bear."""

    vcpus = 4000
    memory_mb = 16_000_000
    local_gb = 1_000_000

    def init_host(self, host: str) -> None:
        """Remove what servers of an earlier process have left: they ended with it."""
        super().init_host(host)
        self._machines: dict[str, Machine] = {}
        self._knobs = Knobs(LAB / "knobs.json")
        shutil.rmtree(LAB / "servers", ignore_errors=True)
        (LAB / "servers").mkdir(parents=True)

    def spawn(
        self,
        context: Any,
        instance: Any,
        image_meta: Any,
        *arguments: Any,
        power_on: bool = True,
        **named: Any,
    ) -> None:
        """Start a server, or do what the knobs say."""
        if self._knobs.take("fail_spawn"):
            # No use in asking another host: there is none.
            raise exception.BuildAbortException(
                instance_uuid=instance.uuid, reason=self._knobs.get("fail_spawn_reason")
            )
        self._hang(context, instance)
        super().spawn(context, instance, image_meta, *arguments, power_on=power_on, **named)
        machine = Machine(LAB / "servers" / instance.uuid, _root(instance), partial(self._off, instance.uuid))
        self._machines[instance.uuid] = machine
        machine.create(
            base64.b64decode(instance.user_data or ""),
            {"uuid": instance.uuid, "name": instance.display_name, "meta": dict(instance.metadata)},
        )
        if not power_on:
            return
        if self._knobs.take("never_attach"):
            machine.say("lab: this server was told to run nothing")
            machine.switch_on_silent()
        else:
            machine.start(float(self._knobs.get("boot_seconds")))

    def destroy(self, context: Any, instance: Any, *arguments: Any, **named: Any) -> None:
        """End a server with all that runs in it."""
        if self._knobs.take("fail_destroy"):
            raise exception.InstancePowerOffFailure(reason="the lab was told to fail")
        time.sleep(float(self._knobs.get("destroy_seconds")))
        machine = self._machines.pop(instance.uuid, None)
        if machine is not None:
            machine.destroy()
        super().destroy(context, instance, *arguments, **named)

    def get_info(self, instance: Any, use_cache: bool = True) -> Any:
        """Say whether it is on."""
        machine = self._machines.get(instance.uuid)
        if machine is None:
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        return hardware.InstanceInfo(state=power_state.RUNNING if machine.on else power_state.SHUTDOWN)

    def get_console_output(self, context: Any, instance: Any) -> bytes:
        """Give what it has printed."""
        machine = self._machines.get(instance.uuid)
        if machine is None:
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        return machine.console()

    def power_off(self, instance: Any, timeout: int = 0, retry_interval: int = 0) -> None:
        """Kill what runs in it; its files stay."""
        super().power_off(instance, timeout, retry_interval)
        self._machines[instance.uuid].stop()

    def power_on(self, context: Any, instance: Any, network_info: Any, *arguments: Any, **named: Any) -> None:
        """Switch it on; the user data of a server runs once in its life."""
        super().power_on(context, instance, network_info, *arguments, **named)
        if not self._machines[instance.uuid].on:
            self._machines[instance.uuid].start(0.0, again=True)

    def reboot(self, context: Any, instance: Any, network_info: Any, *arguments: Any, **named: Any) -> None:
        """Switch it off and on."""
        self._machines[instance.uuid].stop()
        self._machines[instance.uuid].start(0.0, again=True)

    def snapshot(self, context: Any, instance: Any, image_id: str, update_task_state: Any) -> None:
        """Keep what the server has changed of its root, and make an image that names both."""
        machine = self._machines.get(instance.uuid)
        if machine is None:
            raise exception.InstanceNotRunning(instance_id=instance.uuid)
        update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
        root = ""
        if machine.root:
            root = str(_keep(machine, image_id))
        update_task_state(
            task_state=task_states.IMAGE_UPLOADING, expected_state=task_states.IMAGE_PENDING_UPLOAD
        )
        content = {
            "status": "active",
            "disk_format": "raw",
            "container_format": "bare",
            "properties": {"lab_root": root} if root else {},
        }
        blob = json.dumps({"snapshot_of": instance.uuid, "lab_root": root}).encode()
        glance.API().update(context, image_id, content, data=io.BytesIO(blob))
        self._forget_snapshots(context)

    def _hang(self, context: Any, instance: Any) -> None:
        """Wait while the knob says so; a server that is being deleted waits no longer."""
        while self._knobs.get("hang_spawn"):
            time.sleep(_LOOK_EVERY)
            now = objects.Instance.get_by_uuid(context, instance.uuid)
            if now.task_state == task_states.DELETING:
                raise exception.UnexpectedDeletingTaskStateError(
                    instance_uuid=instance.uuid,
                    expected={"task_state": [task_states.SPAWNING]},
                    actual={"task_state": [now.task_state]},
                )

    def _off(self, uuid: str) -> None:
        """Tell nova that a server has switched itself off: it would see only in ten minutes."""
        self.emit_event(event.LifecycleEvent(uuid, event.EVENT_LIFECYCLE_STOPPED))

    def _forget_snapshots(self, context: Any) -> None:
        """Remove the roots of snapshots whose image is gone, unless a server or a snapshot stands on them."""
        kept = {layer for machine in self._machines.values() for layer in machine.root.split(":")}
        images = glance.API()
        there = list((LAB / "snapshots").glob("*-*"))
        for directory in there:
            try:
                images.get(context.elevated(), directory.name)
            except exception.ImageNotFound:
                continue
            kept |= set(_layers(str(directory)).split(":"))
        for directory in there:
            if str(directory / _CHANGES) not in kept:
                subprocess.run(["rm", "-rf", "--one-file-system", "--", str(directory)], check=True)


def _root(instance: Any) -> str:
    """Give the directories that the server's image says it runs in, the uppermost first."""
    root = _layers(str(instance.system_metadata.get("image_lab_root", "")))
    missing = [layer for layer in root.split(":") if root and not Path(layer).is_dir()]
    if missing:
        raise exception.BuildAbortException(
            instance_uuid=instance.uuid, reason=f"the image's lab_root is not there: {', '.join(missing)}"
        )
    return root


def _layers(root: str) -> str:
    """Give what a root is made of: itself, or a snapshot and all that it stands on.

    nova keeps the first 255 characters of a property only, so an image names a directory.
    """
    layers = Path(root, _LAYERS)
    return layers.read_text() if root and layers.is_file() else root


def _keep(machine: Machine, image_id: str) -> Path:
    """Copy what a server has changed, with what hides things below it, but not the files of the run."""
    kept = LAB / "snapshots" / image_id
    kept.mkdir(parents=True)
    changes = kept / _CHANGES
    subprocess.run(["cp", "--archive", "--reflink=auto", str(machine.upper), str(changes)], check=True)
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(changes / "run")], check=True)
    (kept / _LAYERS).write_text(f"{changes}:{machine.root}")
    return kept
