from __future__ import annotations

from search_spaces import Architecture

from .conftest import Reading


def test_trials_come_in_pages_in_the_order_asked_for(reading: Reading) -> None:
    client, path = reading.client, f"/v1/jobs/{reading.job}/trials"
    seen = []
    query = {"sort": "-parameters", "limit": "5"}
    while True:
        page = client.get(path, params=query).json()
        seen += page["items"]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert len(seen) == len({t["id"] for t in seen}) == 12
    sizes = [t["metrics"]["parameters"] for t in seen]
    assert sizes == sorted(sizes, reverse=True)
    assert [t["number"] for t in client.get(path).json()["items"]] == list(range(1, 13))


def test_a_trial_says_what_it_is_and_how_it_went(reading: Reading) -> None:
    client, job = reading.client, reading.job
    page = client.get(f"/v1/jobs/{job}/trials", params={"state": "failed"}).json()
    (failed,) = page["items"]
    assert (failed["error"], failed["state"]) == ("diverged at step 31", "failed")

    page = client.get(f"/v1/jobs/{job}/trials", params={"state": "completed", "limit": 1}).json()
    trial = client.get(f"/v1/trials/{page['items'][0]['id']}").json()
    assert page["items"][0] == {k: v for k, v in trial.items() if k != "curve"}
    architecture = Architecture.model_validate(trial["architecture"])
    assert architecture.fingerprint() == trial["fingerprint"]
    assert [point["steps"] for point in trial["curve"]] == [30, 90, 270]
    losses = [point["metrics"]["loss"] for point in trial["curve"]]
    assert losses == sorted(losses, reverse=True)
    assert trial["metrics"]["loss"] == losses[-1]
    assert (trial["rung"], trial["fidelity"], trial["job"]) == (2, 1, job)
