"""ADDs in flight know in which order they began, and nothing is remembered longer than somebody may ask."""

from fast.ipam.in_flight import AddsInFlight

OLD, NEW, LATER = ("c1", "eth0"), ("c2", "eth0"), ("c3", "eth0")


def test_an_add_is_overtaken_by_one_that_began_later_even_when_that_one_has_ended():
    adds = AddsInFlight()
    with adds.serving(OLD):
        with adds.serving(NEW):
            assert adds.is_overtaken(OLD, by=NEW)
            assert not adds.is_overtaken(NEW, by=OLD)
        assert adds.is_overtaken(OLD, by=NEW)
    with adds.serving(OLD):
        assert not adds.is_overtaken(OLD, by=NEW)


def test_a_repeated_add_counts_from_its_first_arrival():
    adds = AddsInFlight()
    with adds.serving(OLD), adds.serving(NEW):
        with adds.serving(OLD):
            assert adds.is_overtaken(OLD, by=NEW)
        assert OLD in adds
    assert OLD not in adds


def test_what_ended_is_forgotten_once_no_older_add_is_in_flight():
    adds = AddsInFlight()
    with adds.serving(OLD):
        with adds.serving(NEW):
            pass
        with adds.serving(LATER):
            pass
        assert set(adds._began) == {OLD, NEW, LATER}
    assert not adds._began
