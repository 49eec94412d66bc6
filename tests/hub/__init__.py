"""A small Hub on 127.0.0.1, for tests that need one: it takes uploads, serves downloads, and fails as ordered.

The fixture `hub` (import it from `tests.hub.fixture`) is an empty one. Its address is read when huggingface_hub is
imported, so what uses it is a process of its own, started with `hub.environment(token)`; a client in this process names
it: `HfApi(endpoint=hub.url, token=…)`.

    def test_something(hub):
        (hub.root / "models/me/net").mkdir(parents=True)               # a repository is a folder …
        (hub.root / "models/me/net/config.json").write_text("{}")      # … and this its next commit on main
        (hub.root / "models/me/net/.private").touch()                  # or .gated: names of who accepted the terms
        hub.people.add_user("me", orgs={"acme": "write"})              # or "admin", "read"
        write = hub.people.add_token("me")                             # hub.token is one of the user "tester"
        read = hub.people.add_token("me", "read")
        fine = hub.people.add_token("me", "fineGrained", {"me/net": "write", "acme": "read"})

        hub.fail("POST /api/models/.*/commit/.*", status=500)          # once; times=3; times=None: for good
        hub.fail("PUT /lfs/.*", drop=True, after=1)                    # the second one: hang up at once
        hub.fail("POST /api/repos/create", lose=True)                  # do it, then hang up without an answer
        hub.fail("GET .*/resolve/.*", cut=True)                        # half the body, then hang up
        hub.fail("HEAD .*", slow=2)                                    # wait two seconds, then answer
        order = hub.fail(".*", status=429, retry_after=1)              # the client waits that and a second more
        …
        assert order.hits == 1 and "POST /api/repos/create" in hub.requests
        hub.stop()                                                     # nobody listens any more
        tests.hub.server.nowhere()                                     # the address of a Hub that never was

`hub.repos.find("models", "me/net").commits()` are its commits. What the modules do: `server` finds routes and meets the
faults, `reading` and `writing` are the endpoints, `repos` keeps files and commits, `views` shows them, `tokens` knows
who may do what, `cards` judges a README, `contents` makes repositories. From a shell: `python -m tests.hub --help`.
"""
