"""What every store does, whatever it keeps the state in: one set of tests for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudrepo.accounts import DEFAULT_USERS
from cloudrepo.errors import StateFileError
from cloudrepo.state import fresh
from cloudrepo.stores import table
from cloudrepo.stores.journaled import JournaledStore
from cloudrepo.stores.memory import MemoryStore
from cloudrepo.stores.store import Compacted, LostRace, SharedStore
from database import Database
from state_files import a_slice


class StoreContract:
    """The contract. A subclass says how a store is made."""

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], SharedStore]:
        """Opens the store; each call is another client of the same state."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, opened: Callable[[], SharedStore]) -> SharedStore:
        return opened()

    def test_what_was_put_is_got_as_a_copy(self, store: SharedStore) -> None:
        revision = store.put_if("slices/1000", a_slice(), 0)
        found = store.get("slices/1000")
        assert found is not None
        assert (found.key, found.revision, found.value["slice_id"]) == ("slices/1000", revision, 1000)
        found.value["vms"].clear()
        again = store.get("slices/1000")
        assert again is not None
        assert len(again.value["vms"]) == 2
        assert store.get("slices/1001") is None

    def test_a_list_is_by_prefix(self, store: SharedStore) -> None:
        for number in (1000, 1001, 1100):
            store.put_if(f"slices/{number}", a_slice(number), 0)
        assert [entry.key for entry in store.list("slices/10")] == ["slices/1000", "slices/1001"]
        assert {"users/admin", "workers_list", "next_vm_id"} <= {entry.key for entry in store.list()}
        assert store.list("nothing") == []

    def test_revisions_only_grow_and_belong_to_the_key(self, store: SharedStore) -> None:
        before = store.revision
        first = store.put_if("slices/1000", a_slice(), 0)
        second = store.put_if("slices/1001", a_slice(1001), 0)
        assert before < first < second == store.revision
        one = store.get("slices/1000")
        assert one is not None
        assert one.revision == first

    def test_a_race_that_was_lost_writes_nothing(self, store: SharedStore) -> None:
        read = store.put_if("slices/1000", a_slice(), 0)
        store.put_if("slices/1000", a_slice(name="theirs"), read)
        at = store.revision
        attempts: list[Callable[[], int]] = [
            lambda: store.put_if("slices/1000", a_slice(name="mine"), read),
            lambda: store.put_if("slices/1000", a_slice(name="mine"), 0),
            lambda: store.delete_if("slices/1000", read),
            lambda: store.put_if("slices/1000", a_slice(name="mine"), at + 5),
            lambda: store.put_if("slices/1001", a_slice(1001), at),
            lambda: store.delete_if("slices/1001", at),
        ]
        for lost in attempts:
            with pytest.raises(LostRace):
                lost()
        found = store.get("slices/1000")
        assert found is not None
        assert (found.value["name"], store.revision) == ("theirs", at)

    def test_whoever_read_later_may_write(self, store: SharedStore) -> None:
        store.put_if("slices/1000", a_slice(), 0)
        later = store.put_if("slices/1001", a_slice(1001), 0)
        assert store.put_if("slices/1000", a_slice(name="new"), later) > later

    def test_deleted_is_gone_and_may_be_made_again(self, store: SharedStore) -> None:
        read = store.put_if("slices/1000", a_slice(), 0)
        gone = store.delete_if("slices/1000", read)
        assert store.get("slices/1000") is None
        with pytest.raises(LostRace, match="it is gone"):
            store.put_if("slices/1000", a_slice(), read)
        assert store.put_if("slices/1000", a_slice(), 0) > gone > read

    def test_of_many_who_race_one_wins(self, store: SharedStore) -> None:
        won: list[int] = []

        def race(number: int) -> None:
            try:
                store.put_if("slices/1000", a_slice(name=f"by {number}"), 0)
                won.append(number)
            except LostRace:
                pass

        threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = store.get("slices/1000")
        assert found is not None
        assert [f"by {number}" for number in won] == [found.value["name"]]

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("slices/1000", None),
            ("slices/x", a_slice()),
            ("slices/1001", a_slice()),
            ("slices/1000", {"vms": [{"name": "no id"}]}),
            ("users/ann", {"quota_vms": -1}),
            ("workers_list", "10.0.10.1"),
            ("next_vm_id", "soon"),
            ("note", {1, 2}),
        ],
    )
    def test_what_could_not_be_read_again_is_refused(self, store: SharedStore, key: str, value: object) -> None:
        at = store.revision
        with pytest.raises(StateFileError, match="cannot be stored"):
            store.put_if(key, value, 0)
        assert store.revision == at

    def test_what_every_state_has_is_not_deleted(self, store: SharedStore) -> None:
        with pytest.raises(StateFileError, match="cannot be deleted"):
            store.delete_if("workers_list", store.revision)

    def test_a_watch_tells_every_change_from_its_revision_on(self, store: SharedStore) -> None:
        first = store.put_if("slices/1000", a_slice(), 0)
        store.put_if("users/ann", {"quota_vms": 1}, 0)
        second = store.put_if("slices/1000", a_slice(name="new"), first)
        gone = store.delete_if("slices/1000", second)
        told = list(store.watch("slices/", first, patience_s=0))
        assert [(change.revision, change.is_gone) for change in told] == [(first, False), (second, False), (gone, True)]
        assert told[1].value["name"] == "new"
        assert [change.revision for change in store.watch("slices/", second, patience_s=0)] == [second, gone]
        assert list(store.watch("", store.revision + 1, patience_s=0)) == []

    def test_a_watch_goes_on_with_what_comes(self, store: SharedStore) -> None:
        watching = store.watch("slices/", store.revision + 1)
        told = []
        for number in (1000, 1001):
            store.put_if(f"slices/{number}", a_slice(number), 0)
            told.append(next(watching).key)
        assert told == ["slices/1000", "slices/1001"]

    def test_a_watch_is_resumed_after_a_gap(self, store: SharedStore) -> None:
        watching = store.watch("slices/", store.revision + 1)
        store.put_if("slices/1000", a_slice(), 0)
        seen = next(watching).revision
        watching.close()  # type: ignore[attr-defined] # a generator: the client is gone
        for number in (1001, 1002):
            store.put_if(f"slices/{number}", a_slice(number), 0)
        resumed = list(store.watch("slices/", seen + 1, patience_s=0))
        assert [change.key for change in resumed] == ["slices/1001", "slices/1002"]

    def test_a_gap_that_is_too_long_is_said_and_listing_helps(
        self, store: SharedStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(table, "KEPT_CHANGES", 3)
        begin = store.revision + 1
        for number in range(1000, 1005):
            store.put_if(f"slices/{number}", a_slice(number), 0)
        with pytest.raises(Compacted, match="List again"):
            next(store.watch("slices/", begin))
        at = max(entry.revision for entry in store.list("slices/"))
        store.put_if("slices/1005", a_slice(1005), 0)
        assert [change.key for change in store.watch("slices/", at + 1, patience_s=0)] == ["slices/1005"]

    def test_a_commit_is_all_or_nothing_and_one_revision(self, store: SharedStore) -> None:
        at = store.revision
        with Database("unused", store=store).transaction() as data:
            data["slices"]["1000"] = a_slice()
            data["next_vm_id"] = 5000
        assert store.revision == at + 1
        keys = {change.key for change in store.watch("", at + 1, patience_s=0)}
        assert {"slices/1000", "next_vm_id", "users/admin"} <= keys

    def test_what_is_put_by_key_is_in_the_database_over_it(self, store: SharedStore) -> None:
        db = Database("unused", store=store)
        store.put_if("slices/1000", a_slice(), 0)
        record = db.get_slice(1000)
        assert record is not None
        assert record["name"] == "s"
        assert db.data["users"]["admin"]["used_vms"] == 2
        store.delete_if("slices/1000", store.revision)
        assert db.data["slices"] == {}


class TestMemory(StoreContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], SharedStore]:
        store = MemoryStore(fresh(DEFAULT_USERS))
        return lambda: store


class TestYamlAndJournal(StoreContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], SharedStore]:
        return lambda: JournaledStore(tmp_path / "database.yaml", lambda: fresh(DEFAULT_USERS))

    def test_clients_see_each_other(self, opened: Callable[[], SharedStore]) -> None:
        one, two = opened(), opened()
        read = one.put_if("slices/1000", a_slice(), 0)
        two.put_if("slices/1000", a_slice(name="theirs"), read)
        with pytest.raises(LostRace):
            one.put_if("slices/1000", a_slice(name="mine"), read)
        told = [change.value["name"] for change in one.watch("slices/", read, patience_s=0)]
        assert told == ["s", "theirs"]

    def test_a_watch_goes_on_over_another_clients_folds(self, opened: Callable[[], SharedStore]) -> None:
        one, two = opened(), opened()
        watching = one.watch("slices/", one.revision + 1)
        told = []
        for number in range(1000, 1006):
            two.put_if(f"slices/{number}", a_slice(number), 0)
            if number % 2:
                two.fold()
            told.append(next(watching).key)
        assert told == [f"slices/{number}" for number in range(1000, 1006)]

    def test_what_was_folded_away_is_listed_again(self, opened: Callable[[], SharedStore]) -> None:
        one = opened()
        begin = one.put_if("slices/1000", a_slice(), 0)
        one.close()
        later = opened()
        with pytest.raises(Compacted):
            next(later.watch("slices/", begin))
        entry = later.get("slices/1000")
        assert entry is not None
        assert later.put_if("slices/1000", a_slice(name="new"), entry.revision) > begin
        with pytest.raises(LostRace):
            later.put_if("slices/1000", a_slice(name="newer"), begin)

    def test_revisions_grow_over_folds_ends_and_hand_edits(self, tmp_path: Path) -> None:
        path = tmp_path / "database.yaml"
        seen = [0]
        for number in range(1000, 1004):
            store = JournaledStore(path, lambda: fresh(DEFAULT_USERS))
            seen.append(store.revision)
            seen.append(store.put_if(f"slices/{number}", a_slice(number), 0))
            store.close()
            path.write_text(path.read_text().replace("quota_vms: 6", f"quota_vms: {number}"))
            store.get("users/student")
            seen.append(store.put_if("note", number, 0 if number == 1000 else store.revision))
        assert seen == sorted(seen)
