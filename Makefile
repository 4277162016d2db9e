# Everything that a person types. Each target installs what it needs; nothing else has to be there
# but git, make and python3.
SHELL := /bin/bash
PYTHON := .venv/bin/python
INPUT ?= shaped
MINUTES ?= 60
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.DEFAULT_GOAL := help
.PHONY: help audit lock demo stop start reload status test openstack-lab openstack-lab-down openstack-vm-test real-ceph-test fuzz lint bench bench-openstack bench-bridge image user wheels rotate-key retire-key purge clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 24

demo: .venv/installed  ## build, publish and install the input's packages (INPUT=ceph: real Ceph)
	@$(SUDO) $(PYTHON) -m demo --input $(INPUT)

stop:  ## end the master, every worker process, and the demonstration's servers
	@[ ! -x $(PYTHON) ] || $(SUDO) $(PYTHON) -m demo --stop

start: .venv/installed  ## start the master that settings.yaml describes
	@$(PYTHON) -m master.control start

reload:  ## make the master read settings.yaml again, and wait until the settings are in force
	@$(PYTHON) -m master.control reload

status:  ## say whether the master runs, and warn of its signing keys
	@$(PYTHON) -m master.control status

image: .venv/installed  ## prepare an image of a target and switch to it (TARGET=ceph-deb-jammy-x86_64-default, CLOUD=)
	@$(PYTHON) -m master.prepared_images.ask $(TARGET) $(if $(CLOUD),--cloud $(CLOUD))

lock: .venv/installed-dev  ## lock the requirements that requirements/*.in name, with hashes
	@PATH=$(CURDIR)/.venv/bin:$$PATH $(PYTHON) requirements/renew.py

audit: .venv/installed-dev  ## look for known vulnerabilities of the locked requirements and the system packages
	@$(SUDO) deploy/system-packages.sh audit
	@$(PYTHON) deploy/audit.py

wheels: .venv/installed  ## get what build machines install buildbot-worker from (DISTS="jammy noble", all otherwise)
	@$(PYTHON) -m workers.wheels fetch $(foreach dist,$(DISTS),--dist $(dist))

user: .venv/installed  ## make a secret for a user, and print its lines for settings.yaml (NAME=alice)
	@$(PYTHON) -m master.users $(NAME)

rotate-key:  ## make a new signing key, which signs besides the present one
	@$(PYTHON) -m master.publishing.signing rotate

retire-key:  ## let only the newest signing key sign from now on (FORGET=1 takes the others out of key.asc, too)
	@$(PYTHON) -m master.publishing.signing retire $(if $(FORGET),--forget)

purge:  ## remove published packages (KEY=TARGET/SHA1, or OLDER_THAN=DAYS; DRY_RUN=1 only lists them)
	@$(PYTHON) -m master.purge $(KEY) $(if $(OLDER_THAN),--older-than $(OLDER_THAN)) $(if $(DRY_RUN),--dry-run)

test: .venv/installed-dev  ## lint, types, shellcheck and all tests
	@$(SUDO) $(PYTHON) -m tests.gate

openstack-lab: .venv/installed  ## start a real small OpenStack to look around in (ROOTS="bookworm=roots/...")
	@$(SUDO) deploy/system-packages.sh lab
	@$(SUDO) $(PYTHON) -m lab up $(addprefix --root ,$(ROOTS))

openstack-lab-down:  ## end the lab and everything in it
	@[ ! -x $(PYTHON) ] || $(SUDO) $(PYTHON) -m lab down

openstack-vm-test: .venv/installed-dev  ## build packages in a real virtual machine that a real nova boots; minutes
	@$(SUDO) deploy/system-packages.sh lab lab-vm
	@$(SUDO) $(PYTHON) -m lab install
	@$(SUDO) $(PYTHON) -m tests.vm

real-ceph-test: .venv/installed-dev  ## run Ceph's own install-deps.sh, make-dist and ceph.spec.in through the product; 20 minutes
	@$(SUDO) $(PYTHON) -m tests.real_ceph

fuzz: .venv/installed-dev  ## send odd messages to a real master, and changed uploads to its checks (MINUTES=60)
	@$(SUDO) $(PYTHON) -m tests.fuzz --minutes $(MINUTES)

lint: .venv/installed-dev  ## only lint, types and shellcheck
	@$(PYTHON) -m tests.gate --lint

bench: .venv/installed-dev  ## measure everything that docs/performance.md reports; an hour
	@$(SUDO) deploy/system-packages.sh lab
	@$(SUDO) $(PYTHON) -m bench

bench-openstack: .venv/installed-dev  ## only the part of docs/performance.md on the openstack provider, in a lab; 45 minutes
	@$(SUDO) deploy/system-packages.sh lab
	@$(SUDO) $(PYTHON) -m bench openstack

bench-bridge: .venv/installed-dev  ## only the part of docs/performance.md on the teuthology bridge; two minutes
	@$(SUDO) $(PYTHON) -m bench bridge

clean: stop openstack-lab-down  ## remove everything that `make demo` made, the published packages included
	$(SUDO) rm -rf .real-ceph .teuthology .lab/lab .lab/gate .lab/template-* input packages packages-* roots scratch scratch-* staging staging-* state state-* settings-ceph.yaml

.venv/installed: requirements.txt deploy/system-packages.sh
	@$(SUDO) deploy/system-packages.sh runtime
	@[ -x $(PYTHON) ] || python3 -m venv .venv
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

.venv/installed-dev: requirements.txt requirements-dev.txt deploy/system-packages.sh
	@$(SUDO) deploy/system-packages.sh runtime crun tests lab
	@[ -x $(PYTHON) ] || python3 -m venv .venv
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@ .venv/installed
