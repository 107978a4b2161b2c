"""A certificate that cannot work is refused at start, by name and reason."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from certificates import Certificates

from evento.server import ServerError, ServerSettings
from evento.server.tls import check_certificate


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def test_a_valid_certificate_is_known_with_its_end(certificates: Certificates) -> None:
    cert, key = certificates.make("server", days=3)

    until = check_certificate(ServerSettings(tls_cert=cert, tls_key=key, tls_ca=certificates.ca))

    assert until is not None
    assert abs(until - datetime.now(timezone.utc) - timedelta(days=3)) < timedelta(hours=1)
    assert check_certificate(ServerSettings()) is None


def test_an_expired_certificate_is_refused(certificates: Certificates) -> None:
    cert, key = certificates.make("old", days=-1)

    with pytest.raises(ServerError, match=r"old\.pem \(tls_cert\) is not valid: certificate has expired"):
        check_certificate(ServerSettings(tls_cert=cert, tls_key=key))


def test_a_key_of_another_certificate_is_refused(certificates: Certificates) -> None:
    cert, _ = certificates.make("one")
    _, key = certificates.make("two")

    with pytest.raises(ServerError, match=r"two-key\.pem \(tls_key\) does not belong to .*one\.pem"):
        check_certificate(ServerSettings(tls_cert=cert, tls_key=key))


@pytest.mark.parametrize("broken", ["tls_cert", "tls_key", "tls_ca"])
@pytest.mark.parametrize("content", [None, "no pem"])
def test_a_file_that_is_not_one_is_named(certificates: Certificates, broken: str, content: str | None) -> None:
    cert, key = certificates.make("server")
    files = {"tls_cert": cert, "tls_key": key, "tls_ca": certificates.ca}
    if content is None:
        files[broken].unlink()
    else:
        files[broken].write_text(content)

    with pytest.raises(ServerError, match=f"{files[broken].name} \\({broken}\\)"):
        check_certificate(ServerSettings(**files))  # type: ignore[arg-type]
