# hotloop's commands. `make help` lists them.
#
# PYTHON=3.12, or a command or path, chooses the interpreter; without it the
# newest suitable one is taken. ARGS="..." is passed on to what is run.
# Everything goes into .venv/ and build/ in this folder.

export PYTHON
SETUP := tools/setup_env.sh

.PHONY: help demo build test integration matrix conformance fuzz fuzz-c fuzz-short \
    fuzz-protocols fuzz-arguments bench examples doctor-examples docs docs-links lint \
    types portable format sanitize sanitize-conformance tsan valgrind nomemory refleak ktls \
    netem soak sdist wheels clean distclean

help:
	@echo "make demo      asyncio, uvloop and hotloop under HTTP load, one table"
	@echo "make examples  every example on asyncio, uvloop and hotloop, one table"
	@echo "make doctor-examples  every example under the doctor: it is to find nothing"
	@echo "make test      build with assertions and run the tests"
	@echo "make integration  frameworks, servers, databases: unchanged, on hotloop"
	@echo "make conformance  CPython's own tests of asyncio, run against hotloop"
	@echo "make matrix    tests and conformance on CPython 3.11 to 3.15, one table"
	@echo "make build     build the release into .venv/VERSION-release"
	@echo "make bench     the benchmarks (ARGS='--suite tasks ...')"
	@echo "make fuzz      random programs on both loops (MINUTES=60 for an hour)"
	@echo "make fuzz-protocols  random calls of transports from every callback"
	@echo "make fuzz-arguments  everything public, with hostile arguments"
	@echo "make fuzz-c    the parts of the C core, each against a model (MINUTES=10)"
	@echo "make fuzz-short  a few cases of these three, the same each time"
	@echo "make docs      the documentation, and the examples in it are run"
	@echo "make docs-links  whether the links out of it are alive (needs the net)"
	@echo "make lint      ruff, mypy, shellcheck, clang-format"
	@echo "make types     stubtest, mypy and pyright on hotloop as it is installed"
	@echo "make portable  compile for what this system is not: musl, no Linux"
	@echo "make format    let ruff and clang-format rewrite the sources"
	@echo "make sanitize  the tests under AddressSanitizer and UBSan"
	@echo "make sanitize-conformance  CPython's own tests under them"
	@echo "make tsan      what several threads do, under ThreadSanitizer"
	@echo "make valgrind  the core tests under valgrind's memcheck"
	@echo "make nomemory  every call fails for want of memory, one by one"
	@echo "make refleak   the tests, watched for reference leaks"
	@echo "make ktls      the tests of kernel TLS, on a kernel that has it"
	@echo "make netem     the tests over a wire that loses packets, on a kernel that can"
	@echo "make soak      10,000 mixed connections (MINUTES=60 for an hour)"
	@echo "make sdist     a source distribution in dist/"
	@echo "make wheels    that and checked wheels (PYTHON=3.13 or PYTHONS='3.11 3.13')"
	@echo "make clean     remove what was built; distclean: .venv/ as well"

demo:
	@env=$$($(SETUP) release demo wrk) && exec "$$env/bin/python" tools/demo.py $(ARGS)

examples:
	@env=$$($(SETUP) release demo,test openssl) && \
	    exec "$$env/bin/python" examples/measure.py $(ARGS)

doctor-examples:
	@env=$$($(SETUP) release demo,test openssl) && \
	    exec "$$env/bin/python" tools/doctor_examples.py $(ARGS)

build:
	@env=$$($(SETUP) release "") && echo "hotloop is in $$env"

test:
	@env=$$($(SETUP) debug test wrk) && exec "$$env/bin/python" -m pytest $(ARGS)

# The plugins of other packages stay out: the tests bring their own loop.
integration:
	@env=$$($(SETUP) integration test,integration wrk services) && \
	    export HOTLOOP_TEST_LOOPS=$${HOTLOOP_TEST_LOOPS:-hotloop} && \
	    exec "$$env/bin/python" -m pytest -p no:asyncio -p no:aiohttp \
	    -p no:pytest_aiohttp -p no:anyio tests/integration $(ARGS)

conformance:
	@env=$$($(SETUP) debug test testsuite) && \
	    exec "$$env/bin/python" -m tools.conformance $(ARGS)

matrix:
	@env=$$($(SETUP) tools dev,demo,test) && exec "$$env/bin/python" tools/matrix.py $(ARGS)

bench:
	@env=$$($(SETUP) release bench wrk openssl) && exec "$$env/bin/python" -m benchmarks $(ARGS)

fuzz:
	@env=$$($(SETUP) debug test wrk) && cd tests && \
	    exec "$$env/bin/python" -m fuzz --minutes=$(or $(MINUTES),1.25) $(ARGS)

fuzz-protocols fuzz-arguments:
	@env=$$($(SETUP) debug test wrk) && cd tests && \
	    exec "$$env/bin/python" -m $(subst -,.,$@) \
	    --minutes=$(or $(MINUTES),1) $(ARGS)

# With clang libFuzzer looks for inputs, else a driver of our own tries some.
fuzz-c:
	@env=$$($(SETUP) debug test wrk) && cd tests && \
	    exec "$$env/bin/python" -m fuzz.native --minutes=$(or $(MINUTES),1) $(ARGS)

fuzz-short:
	@env=$$($(SETUP) debug test wrk) && cd tests && \
	    "$$env/bin/python" -m fuzz.protocols --sequences=200 --seed=500 && \
	    "$$env/bin/python" -m fuzz.arguments --calls=400 --seed=500 && \
	    exec "$$env/bin/python" -m fuzz.native --runs=500 --max-len=64 --seed=500

# A link inside that leads nowhere is a warning, and warnings are errors.
SPHINX := -m sphinx -q -W --keep-going -d build/docs/doctrees

docs:
	@env=$$($(SETUP) docs docs,types) && \
	    "$$env/bin/python" $(SPHINX) -b html docs build/docs/html && \
	    "$$env/bin/python" $(SPHINX) -b doctest docs build/docs/doctest && \
	    echo "docs: build/docs/html/index.html"

docs-links:
	@env=$$($(SETUP) docs docs,types) && \
	    "$$env/bin/python" $(SPHINX) -b linkcheck docs build/docs/links

lint:
	@env=$$($(SETUP) tools dev,demo,test) && exec tools/lint.sh "$$env/bin"

format:
	@env=$$($(SETUP) tools dev,demo,test) && exec tools/lint.sh "$$env/bin" --fix

types:
	@env=$$($(SETUP) docs docs,types) && exec "$$env/bin/python" tools/typecheck.py

portable:
	@env=$$($(SETUP) debug test wrk musl) && tools/portable.sh "$$env/bin/python"

sanitize:
	@env=$$($(SETUP) sanitize test wrk) && \
	    export HOTLOOP_TEST_LOOPS=$${HOTLOOP_TEST_LOOPS:-hotloop} && \
	    exec tools/sanitized.sh "$$env/bin/python" -m pytest -o timeout=600 $(ARGS)

sanitize-conformance:
	@env=$$($(SETUP) sanitize test wrk testsuite) && \
	    exec tools/sanitized.sh "$$env/bin/python" -m tools.conformance $(ARGS)

# What is done from several threads; the rest has one and would only take time.
TSAN_TESTS := tests/test_threadsafe.py tests/test_threadsafe_handle.py \
    tests/test_executors.py tests/test_dns.py tests/test_signals.py \
    tests/test_isolated.py tests/test_fork.py tests/test_subprocess.py

tsan:
	@env=$$($(SETUP) tsan test wrk) && \
	    export HOTLOOP_TEST_LOOPS=$${HOTLOOP_TEST_LOOPS:-hotloop} && \
	    exec tools/tsan.sh "$$env/bin/python" -m pytest -o timeout=600 \
	    $(or $(ARGS),$(TSAN_TESTS))

# Suppressions are for what the interpreter does; leaks count if hotloop has a part.
valgrind:
	@env=$$($(SETUP) debug test wrk valgrind) && \
	    exec "$$env/bin/python" tools/valgrind.py $(ARGS)

nomemory:
	@env=$$($(SETUP) debug test wrk) && cd tests && \
	    exec "$$env/bin/python" -m nomemory $(ARGS)

# The totals of references exist only in an interpreter built for debugging.
refleak: export PYTHON := $(or $(PYTHON),python3.11-dbg)
refleak:
	@[ "$$PYTHON" != python3.11-dbg ] || \
	    tools/system_packages.sh "$$PYTHON" debug-python
	@env=$$($(SETUP) debug test wrk) && exec "$$env/bin/python" tools/refleak.py $(ARGS)

ktls:
	@env=$$($(SETUP) debug test wrk) && exec tools/ktls_vm.sh \
	    "$$env/bin/python" -m pytest -o timeout=600 tests/test_ktls*.py $(ARGS)

netem:
	@env=$$($(SETUP) debug test wrk) && exec tools/ktls_vm.sh \
	    "$$env/bin/python" -m pytest -o timeout=600 tests/test_netem.py $(ARGS)

soak:
	@env=$$($(SETUP) release bench wrk openssl) && exec "$$env/bin/python" \
	    -m benchmarks.soak --minutes=$(or $(MINUTES),5) $(ARGS)

sdist:
	@env=$$($(SETUP) tools dev,demo,test) && rm -rf dist && \
	    "$$env/bin/python" -m build -q --sdist && ls dist

# One for each interpreter that is named, else for each that is found.
wheels:
	@env=$$($(SETUP) tools dev,demo,test) && \
	    exec "$$env/bin/python" tools/wheels.py $(ARGS) $(or $(PYTHONS),$(PYTHON))

clean:
	rm -rf build benchmarks/build dist pkg/hotloop.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv
