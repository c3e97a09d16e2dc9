"""SoftHSM2, a PKCS#11 token in software (Debian package softhsm2), with all its tokens in one temporary directory."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from vault.keystore.root.common import Secret
from vault.keystore.root.pkcs11 import TokenSettings
from vault.model import Assurance

LIBRARY = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "314159"
_UTIL = "softhsm2-util"


@dataclass(kw_only=True)
class SoftHsm:
    """The library as this process has loaded it: it reads its configuration once."""

    directory: Path
    numbers: count

    @property
    def tokens(self) -> Path:
        return self.directory / "tokens"

    def token(self, **changes) -> TokenSettings:
        """Initialise a token and return how to reach it."""
        label = f"token-{next(self.numbers)}"
        command = [_UTIL, "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "271828"]
        subprocess.run(command, check=True, capture_output=True)
        defaults = {"library": LIBRARY, "token": label, "pin": Secret(value=PIN), "assurance": Assurance.DEVICE}
        return TokenSettings(**{**defaults, **changes})


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory):
    if not LIBRARY.exists() or shutil.which(_UTIL) is None:
        pytest.skip("needs SoftHSM2: apt-get install softhsm2")
    directory = tmp_path_factory.mktemp("softhsm")
    (directory / "tokens").mkdir()
    (directory / "conf").write_text(f"directories.tokendir = {directory}/tokens\nobjectstore.backend = file\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(directory / "conf"))
        assert os.environ["SOFTHSM2_CONF"]
        yield SoftHsm(directory=directory, numbers=count())
