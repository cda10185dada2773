"""`ovs-ofctl`: the flows of one bridge, `br-int` (ovs-ofctl(8))."""

from __future__ import annotations

from fakes.flow_table import METER_FEATURES, BadFlow
from simulated.state import Answer, Call, Refusal
from simulated.tools.ovs_vsctl import BRIDGE

PROTOCOL = ("--timeout=20", "-O", "OpenFlow13")


def answer(call: Call) -> Answer:
    """One call."""
    words = call.words[1:]
    if words[:3] != PROTOCOL:
        raise Refusal(f"ovs-ofctl: this stand-in does not know {' '.join(words)}")
    match words[3:]:
        case ("--bundle", "add-flows", bridge, "-"):
            _require(call, bridge)
            try:
                call.host.flows.change(call.stdin)
            except BadFlow as error:
                raise Refusal(str(error)) from None
            return Answer()
        case ("add-meter" | "mod-meter" as verb, bridge, text):
            _require(call, bridge)
            try:
                call.host.flows.set_meter(text, is_new=verb == "add-meter")
            except BadFlow as error:
                raise Refusal(str(error)) from None
            return Answer()
        case ("del-meter", bridge, number):
            _require(call, bridge)
            call.host.flows.delete_meter(int(number.removeprefix("meter=")))
            return Answer()
        case ("dump-meters", bridge):
            _require(call, bridge)
            return Answer(out=call.host.flows.dump_meters())
        case ("meter-features", bridge):
            _require(call, bridge)
            return Answer(out=METER_FEATURES.format(most=262144))
        case ("--names", "--no-stats", "dump-flows", bridge):
            _require(call, bridge)
            return Answer(out=call.host.flows.dump())
        case ("--names", "--no-stats", "dump-flows", bridge, metadata):
            _require(call, bridge)
            return Answer(out=call.host.flows.dump(metadata))
    raise Refusal(f"ovs-ofctl: unknown command '{words[3]}'; use --help for help")


def _require(call: Call, bridge: str) -> None:
    if bridge != BRIDGE or not call.host.datapath:
        raise Refusal(f"ovs-ofctl: {bridge} is not a bridge or a socket")
