"""Signatures over a whole version, made and checked by OpenSSF's model-signing (extra `sign`)."""

import tempfile
from pathlib import Path

from mnist_jax.errors import UserError, first_line
from mnist_jax.files import write_bytes
from mnist_jax.repository.layout import SIGNATURE


def sign(folder: Path, private_key: Path) -> None:
    """Signs every file in a version's folder with an elliptic-curve key in PEM.

    The signature appears whole, beside a version that is served as well, or replaces an older one.

    Raises:
        UserError: model-signing is not installed, the key cannot be used, or the folder cannot be
            written.
    """
    hashing, signing, _ = _library()
    with tempfile.TemporaryDirectory() as elsewhere:  # nothing of a killed process stays here
        made = Path(elsewhere, SIGNATURE)
        try:
            signer = signing.Config().use_elliptic_key_signer(private_key=private_key)
            signer.set_hashing_config(_every_file(hashing))
            signer.sign(folder, made)
        except Exception as error:  # the library and those beneath it raise what they like
            raise UserError(
                f"{private_key} cannot sign ({first_line(error)}); "
                "make a key with openssl ecparam -name prime256v1 -genkey -noout"
            ) from error
        write_bytes(folder / SIGNATURE, made.read_bytes())


def check(folder: Path, public_key: Path) -> None:
    """Checks a version's signature, and with it every file of the version.

    Raises:
        UserError: there is no signature, it is another key's, or a file is not what was signed.
    """
    if not (folder / SIGNATURE).is_file():
        raise UserError(
            f"{folder} is not signed; sign it with scripts/publish --sign KEY, or leave the key out"
        )
    hashing, _, verifying = _library()
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        verifier.set_hashing_config(_every_file(hashing))
        verifier.verify(folder, folder / SIGNATURE)
    except Exception as error:  # as above
        raise UserError(
            f"the signature of {folder} does not hold for {public_key} ({first_line(error)}); "
            "do not serve it, or give the key of the publisher"
        ) from error


def _every_file(hashing):
    """All but the signature: the library would leave out what belongs to git."""
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _library():
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise UserError(
            f"model-signing is not installed ({error}); run scripts/install sign"
        ) from error
    return hashing, signing, verifying
