"""The transcript in README.md, between <!-- demo --> and <!-- /demo -->, is what the demo prints."""
import difflib
import re

from demo_runs import normalise, run_demo
from llm import ROOT


def test_the_transcript_is_what_the_demo_prints():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- demo -->\s*(`{3,})\w*\n(.*?)\1\s*<!-- /demo -->", readme, re.DOTALL)
    assert found, "README.md has no transcript between <!-- demo --> and <!-- /demo -->"
    status, transcript, complaints = run_demo("paid")
    assert status == 0, transcript + complaints
    shown, printed = normalise(found[2]).splitlines(), normalise(transcript).splitlines()
    difference = list(difflib.unified_diff(shown, printed, "README.md", "the demo", lineterm=""))
    assert not difference, "run `scripts/demo/demo` and put what it prints into README.md:\n" + "\n".join(difference)
