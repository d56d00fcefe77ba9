"""The code checker: runs a model's program against tests that it never sees.

    parent        checker.py       CodeChecker.grade([(tests, program), ...]) -> [Verdict, ...]
      worker      judge.py         runs the tests' asserts; holds what is expected
        zygote    zygote.py        a fork server, started once, that holds nothing worth reading
          keeper                   ends the candidate and all that it started
            candidate              runs the program, confined; hands back plain values

docs/sandbox.md says what the confinement holds on which machine.
"""
