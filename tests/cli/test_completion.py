"""What bash completes, in a bash of its own."""

import shutil
import subprocess

import pytest

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
CASES = {
    "me": "measure",
    "run progressive_sh": "progressive_sharpening",
    "run weight_decay --pre": "--preset",
    "bound pac-bayes --delta-": "--delta-prime",
    "mirror runs/mine --t": "--to",
}


def test_bash_completes_commands_studies_and_flags(command, tmp_path):
    printed = command("--tyro-print-completion", "bash", cwd=tmp_path)
    assert printed.returncode == 0
    asked = "".join(
        f"\nCOMP_WORDS=(lossgeom {words}); COMP_CWORD={len(words.split())}; _tyro_lossgeom"
        '\necho "${COMPREPLY[@]}"'
        for words in CASES
    )
    script = f"{printed.stdout}\ncomplete -p lossgeom{asked}\n"
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["complete -F _tyro_lossgeom lossgeom", *CASES.values()]
