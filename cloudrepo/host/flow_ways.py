"""Which ways a flow may take frames: to the other hosts in a VLAN of ours only. Pure.

Standard library only, Python 3.8 or newer: installed on hosts as a part of one file, see `helper.py`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: To a bridge's own address: a switch may shut the port that such a frame comes from.
TO_BRIDGES = "load:0x180c200000->"


def stays_in_its_vlans(actions: Iterable[str], outside: Collection[str], is_tagged: bool) -> bool:
    """Whether frames leave by a port of others in a VLAN that the flow names, and none is switched in another one.

    Args:
        actions: of the flow, one by one, each within the grammar.
        outside: ports that lead to the other hosts.
        is_tagged: whether what the flow matches has a tag of ours.
    """
    tag = "ours" if is_tagged else "none"
    is_for_bridges = is_retagged = False
    for action in actions:
        if action == "pop_vlan":
            tag, is_retagged = "none", True
        elif action.startswith("push_vlan:"):
            tag, is_retagged = "new", True
        elif action.startswith("set_field:"):
            if tag == "none":
                return False
            tag, is_retagged = "ours", True
        elif action.startswith("load:"):
            is_for_bridges = action.startswith(TO_BRIDGES)
        elif action == "NORMAL":
            if is_retagged:
                return False
        elif action[len("output:") :] in outside and (tag != "ours" or is_for_bridges):
            return False
    return True
