"""What bundles tell is added up, bounded, and forgotten when nobody tells it any more."""

from evento.server.telemetry import OTHER, ConsumerKey, ConsumerState, HandlerKey, Instances, Telemetry


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_handlers_did_is_added_up() -> None:
    telemetry = Telemetry()
    key = HandlerKey("shop", "Orders.place", "PlaceOrderCommand")
    telemetry.handled(key, number=3, failed=1, seconds=0.5)
    telemetry.handled(key, number=2, seconds=0.25)

    [(found, handled)] = telemetry.handlers()
    assert (found, handled.number, handled.failed, handled.seconds) == (key, 5, 1, 0.75)


def test_numbers_that_were_sent_never_count_down() -> None:
    telemetry = Telemetry()
    telemetry.handled(HandlerKey("shop", "Orders.place", "A"), number=-5, failed=-1, seconds=-2.0)

    [(_, handled)] = telemetry.handlers()
    assert (handled.number, handled.failed, handled.seconds) == (0, 0, 0.0)


def test_names_beyond_the_bound_are_counted_under_one() -> None:
    telemetry = Telemetry(max_names=2)
    for number in range(100):
        telemetry.handled(HandlerKey(f"b{number}", "Orders.place", "PlaceOrderCommand"), number=1)

    assert {key.bundle: handled.number for key, handled in telemetry.handlers()} == {"b0": 1, "b1": 1, OTHER: 98}


def test_a_consumer_that_nobody_tells_of_is_forgotten() -> None:
    clock = Clock()
    telemetry = Telemetry(clock=clock, expiry=60, max_names=2)
    old, new, refused = (ConsumerKey("shop", name, 1, "*") for name in ("Old", "New", "Refused"))
    telemetry.consumer(old, ConsumerState(5))
    clock.now += 50
    telemetry.consumer(new, ConsumerState(1))
    telemetry.consumer(refused, ConsumerState(1))
    clock.now += 20

    assert [key for key, _ in telemetry.consumers()] == [new]
    telemetry.consumer(refused, ConsumerState(1))
    assert [key for key, _ in telemetry.consumers()] == [new, refused]


def test_instances_are_those_that_were_told_last() -> None:
    telemetry = Telemetry(max_names=2)
    telemetry.live([("shop", Instances(2, 1))])
    telemetry.live((f"b{number}", Instances(1, 1)) for number in range(5))

    assert list(telemetry.instances) == ["b0", "b1"]


def test_the_slowest_run_is_that_of_the_last_minute() -> None:
    clock = Clock()
    telemetry = Telemetry(clock=clock)
    key = HandlerKey("shop", "Orders.place", "A")

    def slowest() -> float:
        [(_, handled)] = telemetry.handlers()
        return handled.slowest(clock.now)

    telemetry.handled(key, number=1, slowest=2.0)
    clock.now += 25
    telemetry.handled(key, number=1, slowest=1.0)
    assert slowest() == 2.0
    clock.now += 10
    telemetry.handled(key, number=1, slowest=0.5)
    assert slowest() == 2.0  # the half before counts
    clock.now += 30
    assert slowest() == 0.5
    clock.now += 60
    assert slowest() == 0.0


def test_consumers_are_forgotten_with_the_last_instance_of_their_bundle() -> None:
    telemetry = Telemetry()
    shop, other = ConsumerKey("shop", "Orders", 1, "*"), ConsumerKey("other", "Orders", 1, "*")
    telemetry.consumer(shop, ConsumerState(5))
    telemetry.consumer(other, ConsumerState(5))
    telemetry.live([("shop", Instances(1, 0))])

    assert [key for key, _ in telemetry.consumers()] == [shop]
