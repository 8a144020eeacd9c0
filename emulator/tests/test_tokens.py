from __future__ import annotations

import pytest
from emulator_support.process import EmulatorProcess, until
from vertex_ray_emulator.request_log import RequestLog
from vertex_ray_emulator.surfaces.tokens import Tokens


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_token_is_valid_for_its_lifetime() -> None:
    clock = Clock()
    tokens = Tokens(30, clock=clock)
    token, seconds = tokens.mint()
    assert seconds == 30
    clock.now = 29.9
    assert tokens.accepts(f"Bearer {token}")
    clock.now = 30.0
    assert not tokens.accepts(f"Bearer {token}")


def test_changed_lifetime_applies_to_new_tokens() -> None:
    clock = Clock()
    tokens = Tokens(30, clock=clock)
    old, _ = tokens.mint()
    tokens.seconds = 5
    new, _ = tokens.mint()
    clock.now = 10
    assert tokens.accepts(f"Bearer {old}")
    assert not tokens.accepts(f"Bearer {new}")


def test_revoked_tokens_are_rejected_and_new_ones_accepted() -> None:
    tokens = Tokens()
    old, _ = tokens.mint()
    tokens.revoke_all()
    new, _ = tokens.mint()
    assert not tokens.accepts(f"Bearer {old}")
    assert tokens.accepts(f"bearer {new}")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer abc"])
def test_invalid_authorization_is_rejected(header: str | None) -> None:
    assert not Tokens().accepts(header)


def test_expired_tokens_are_dropped() -> None:
    clock = Clock()
    tokens = Tokens(1, clock=clock)
    for i in range(25_000):
        clock.now = float(i)
        tokens.mint()
    assert len(tokens._expiry) <= 10_001


def test_request_log_is_limited_and_can_be_filtered() -> None:
    log = RequestLog(capacity=3)
    for method in ("GetA", "GetB", "ListB", "GetC"):
        log.record("rest", method, "r/1", authorised=True, status=200)
    assert [call["method"] for call in log.listing()] == ["GetB", "ListB", "GetC"]
    assert [call["method"] for call in log.listing(method="Get*")] == ["GetB", "GetC"]
    assert log.listing(since=log.listing()[-1]["time"]) == []
    assert log.listing(surface="grpc") == []


def test_401_without_a_valid_token(emulator: EmulatorProcess) -> None:
    path = f"/v1beta1/projects/{emulator.project}/locations/us-central1/persistentResources"
    assert emulator.request("GET", path, token=emulator.token())[0] == 200
    for token in (None, "ya29.other"):
        status, body = emulator.request("GET", path, token=token)
        assert status == body["error"]["code"] == 401
        assert body["error"]["status"] == "UNAUTHENTICATED"
        assert body["error"]["message"].startswith("Request had invalid authentication credentials.")
    assert [call["authorised"] for call in emulator.calls("List*")] == [True, False, False]
    assert [call["status"] for call in emulator.calls("List*")] == [200, 401, 401]


def test_tokens_can_be_revoked_and_shortened_by_the_admin_api(emulator: EmulatorProcess) -> None:
    path = f"/v1/projects/{emulator.project}/locations/us-central1/persistentResources"
    token = emulator.token()
    emulator.admin("POST", "tokens/revoke")
    assert emulator.request("GET", path, token=token)[0] == 401
    emulator.admin("POST", "tokens/settings", {"seconds": 1})
    try:

        def accepted() -> str | None:
            # On a busy machine, a token may expire before it is used.
            new = emulator.token()
            return new if emulator.request("GET", path, token=new)[0] == 200 else None

        token = until(accepted, "no token is accepted")
        until(lambda: emulator.request("GET", path, token=token)[0] == 401)
    finally:
        emulator.admin("POST", "tokens/settings", {"seconds": 3600})
    for wrong in (0, -1, "1", None, True):
        with pytest.raises(RuntimeError, match="Invalid value for seconds"):
            emulator.admin("POST", "tokens/settings", {"seconds": wrong})


def test_metadata_server_answers_clients(emulator: EmulatorProcess) -> None:
    flavor = {"Metadata-Flavor": "Google"}
    base = "/computeMetadata/v1/"
    account = base + "instance/service-accounts/default"
    status, answer = emulator.request("GET", f"{account}/token", headers=flavor)
    assert status == 200
    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] == 3600
    assert emulator.request("GET", f"{account}/token")[0] == 403
    assert emulator.request("GET", base + "project/project-id", headers=flavor) == (200, emulator.project)
    assert emulator.request("GET", "/", headers=flavor)[0] == 200
    status, answer = emulator.request("GET", f"{account}/?recursive=true", headers=flavor)
    assert answer["email"].endswith(f"@{emulator.project}.iam.gserviceaccount.com")
    assert emulator.request("GET", f"{account}/email", headers=flavor) == (200, answer["email"])
    assert emulator.request("GET", base + "instance/nothing", headers=flavor)[0] == 404
