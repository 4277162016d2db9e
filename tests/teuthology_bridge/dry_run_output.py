"""What teuthology-suite 1.3.0 says to `--dry-run -vv`, trimmed: two jobs of a suite, on both its streams in turn."""

SHA1 = "4c6eb865ef9fb79f2fa78bbcca2611ca44930dd2"

_SCHEDULE = (
    "/lab/venv/bin/teuthology-schedule --name lab-2026-11-24_17:46:45-small-main-distro-default-smithi"
    " --worker smithi --dry-run --priority 1000 -v"
)

BEFORE = f"""\
2026-11-24 17:46:45,250.250 INFO:teuthology.suite:Using random seed=6039
2026-11-24 17:46:45,251.251 INFO:teuthology.suite.run:Checking for expiration (None)
2026-11-24 17:46:45,262.262 DEBUG:teuthology.repo_utils:git ls-remote https://git.example.org/ceph.git main -> {SHA1}
2026-11-24 17:46:45,262.262 INFO:teuthology.suite.run:ceph sha1: {SHA1}
2026-11-24 17:46:45,280.280 DEBUG:teuthology.suite.run:Base job config:
branch: main
overrides:
  install:
    ceph:
      flavor: default
      sha1: {SHA1}
sha1: {SHA1}
tasks: []
2026-11-24 17:46:45,281.281 DEBUG:teuthology.suite.merge:merging config {{distros/u20.04 tasks/install}}
2026-11-24 17:46:45,281.281 DEBUG:teuthology.suite.merge:postmerge script running:

"""
MEMO_LOG = f"2026-11-24 17:46:45,299.299 DEBUG:teuthology.suite.util:Memo:  command: {_SCHEDULE} --first-in-suite --seed 6039\n"
MEMO = """\
---
description: null
email: null
first_in_suite: true
last_in_suite: false
machine_type: smithi
name: lab-2026-11-24_17:46:45-small-main-distro-default-smithi
owner: scheduled_lab@host
priority: 1000
seed: '6039'
verbose: true

"""
JOB_LOG = f"""\
2026-11-24 17:46:46,260.260 INFO:teuthology.suite.run:Scheduling small/{{distros/u20.04 tasks/install}}
2026-11-24 17:46:46,260.260 DEBUG:teuthology.suite.util: command: {_SCHEDULE} --num 1 --description 'small/{{distros/u20.04 tasks/install}}' -- -
"""
JOB = f"""\
---
branch: main
description: small/{{distros/u20.04 tasks/install}}
first_in_suite: false
last_in_suite: false
name: lab-2026-11-24_17:46:45-small-main-distro-default-smithi
os_type: ubuntu
os_version: '20.04'
overrides:
  install:
    ceph:
      flavor: default
      sha1: {SHA1}
  workunit:
    sha1: {SHA1}
repo: https://git.example.org/ceph.git
seed: 6039
sha1: {SHA1}
tasks:
- install: null
- buildpackages: null
- exec:
    mon.a:
    - 'set -e

      echo one

      '
timestamp: 2026-11-24_17:46:45
verbose: true

"""
OTHER_LOG = f"""\
2026-11-24 17:46:46,741.741 INFO:teuthology.suite.run:Scheduling small/{{distros/u22.04 tasks/upgrade}}
2026-11-24 17:46:46,741.741 DEBUG:teuthology.suite.util: command: {_SCHEDULE} --num 1 --description 'small/{{distros/u22.04 tasks/upgrade}}' -- -
"""
OTHER = f"""\
---
branch: main
description: small/{{distros/u22.04 tasks/upgrade}}
name: lab-2026-11-24_17:46:45-small-main-distro-default-smithi
os_type: ubuntu
os_version: '22.04'
overrides:
  install:
    ceph:
      flavor: default
      sha1: {SHA1}
repo: https://git.example.org/ceph.git
seed: 6039
sha1: {SHA1}
tasks:
- install:
    branch: quincy
- install.upgrade:
    all: null
verbose: true

"""
RESULTS_LOG = f"""\
2026-11-24 17:46:48,189.189 INFO:teuthology.suite.run:Suite small in /lab/src/qa/suites/small scheduled 2 jobs.
2026-11-24 17:46:48,189.189 INFO:teuthology.suite.run:0/2 jobs were filtered out.
2026-11-24 17:46:48,189.189 INFO:teuthology.suite.run:Scheduled 2 jobs in total.
2026-11-24 17:46:48,189.189 DEBUG:teuthology.suite.util:Results:  command: {_SCHEDULE} --last-in-suite --timeout 43200
"""
RESULTS = """\
---
description: null
first_in_suite: false
last_in_suite: true
name: lab-2026-11-24_17:46:45-small-main-distro-default-smithi
results_timeout: '43200'
verbose: true

"""
AFTER = "2026-11-24 17:46:48,679.679 INFO:teuthology.suite.run:Test results viewable at https://pulpito.example.org/x/\n"

OUTPUT = MEMO + JOB + OTHER + RESULTS
LOG = BEFORE + MEMO_LOG + JOB_LOG + OTHER_LOG + RESULTS_LOG + AFTER
BOTH = BEFORE + MEMO_LOG + MEMO + JOB_LOG + JOB + OTHER_LOG + OTHER + RESULTS_LOG + RESULTS + AFTER
"""As `2>&1` gives it."""
