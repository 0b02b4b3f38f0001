"""Recipes: which policies, and which of a pod's named ports, make a rule set; the pods of a Deployment share one.

A recipe is made again when the numbers behind its named ports change. Rule sets with equal contents are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fast.policy.classes import PeersMap, RuleSet
from fast.policy.map_layout import Capacity
from fast.policy.matching import Peers, Watches
from fast.policy.policy_objects import Direction, NamedPort, Problem, ProblemKind
from fast.policy.restart import Remembered
from fast.policy.rule import NamedPortMatch, Rule
from fast.policy.rulesets import (
    MAX_PAGES,
    PAGE_GROUPS,
    Page,
    RuleSetContent,
    Watch,
    compile_rules,
    pages_of,
    watches_of,
)
from fast.policy.selection import StoredPolicy

RecipeKey = tuple[Direction, tuple[int, ...], tuple[NamedPort, ...]]


@dataclass(slots=True, eq=False)
class Recipe:
    """The policies of a direction, and what they came to. ``rule_set`` None: too large, or not made yet."""

    key: RecipeKey
    policies: list[StoredPolicy]
    watches: frozenset[Watch]
    holds: bool = False
    users: int = 0
    rule_set: RuleSet | None = None
    problems: list[Problem] = field(default_factory=list)
    too_large: Problem | None = None

    @property
    def direction(self) -> Direction:
        """Whose packets the rule set is asked about."""
        return self.key[0]

    @property
    def own_ports(self) -> tuple[NamedPort, ...]:
        """The pod's named ports, if ingress rules ask for any."""
        return self.key[2]


class Recipes:
    """The recipes in use, and the rule sets they make."""

    def __init__(self, peers: Peers, watches: Watches, maps: PeersMap, capacity: Capacity) -> None:
        self._peers = peers
        self._watches = watches
        self._maps = maps
        self._capacity = capacity
        self._recipes: dict[RecipeKey, Recipe] = {}
        self._watching: dict[Watch, dict[Recipe, None]] = {}
        #: Recipes to make; those made, and the rule sets that came, since these were last cleared.
        self.dirty: dict[Recipe, None] = {}
        self.made: set[Recipe] = set()
        self.added: dict[RuleSet, None] = {}
        #: Restart: the rule sets that the maps have.
        self.remembered = Remembered()

    def __iter__(self) -> Iterator[Recipe]:
        return iter(self._recipes.values())

    @property
    def problems(self) -> Iterable[Problem]:
        """What is wrong with the policies in use."""
        for recipe in self._recipes.values():
            yield from recipe.problems
            if recipe.too_large is not None:
                yield recipe.too_large

    def acquire(
        self, policies: list[StoredPolicy], direction: Direction, ports: tuple[NamedPort, ...]
    ) -> Recipe | None:
        """Use the recipe of these policies once more; None if none of them has a say in the direction."""
        concerned = [stored for stored in policies if stored.rules.concerns(direction)]
        if not concerned:
            return None
        own = tuple(sorted(ports)) if _asks_own_ports(concerned, direction) else ()
        key = (direction, tuple(stored.version for stored in concerned), own)
        recipe = self._recipes.get(key)
        if recipe is None:
            recipe = self._recipes[key] = self._new(key, concerned)
        recipe.users += 1
        return recipe

    def _new(self, key: RecipeKey, policies: list[StoredPolicy]) -> Recipe:
        rules = [rule for stored in policies for rule in stored.rules.rules(key[0])]
        recipe = Recipe(key, policies, watches_of(rules))
        self._hold(recipe)
        self.dirty[recipe] = None
        return recipe

    def _hold(self, recipe: Recipe) -> None:
        """Have the recipe's named ports matched; its rule set holds the peers."""
        for watch in recipe.watches:
            self._watches.acquire(watch)
            self._watching.setdefault(watch, {})[recipe] = None
        recipe.holds = True

    def _let_go(self, recipe: Recipe, now_ns: int) -> None:
        """Have them matched no more: there is no room for the recipe's rule set, or no need for it."""
        if not recipe.holds:
            return
        recipe.holds = False
        for watch in recipe.watches:
            self._watches.release(watch, now_ns)
            watching = self._watching[watch]
            del watching[recipe]
            if not watching:
                del self._watching[watch]

    def release(self, recipe: Recipe, now_ns: int) -> None:
        """Use a recipe once less; the last use ends it, but not its rule set, which pods may still have."""
        recipe.users -= 1
        if recipe.users:
            return
        del self._recipes[recipe.key]
        self.dirty.pop(recipe, None)
        self.set_rule_set(recipe, None, now_ns)
        self._let_go(recipe, now_ns)

    def set_rule_set(self, recipe: Recipe, rule_set: RuleSet | None, now_ns: int) -> None:
        """Let a recipe refer to another rule set, or to none."""
        if rule_set is not None:
            use(rule_set)
        if recipe.rule_set is not None:
            disuse(recipe.rule_set, now_ns)
        recipe.rule_set = rule_set

    def touch(self, watches: Iterable[Watch]) -> None:
        """Make again the recipes that depend on watches whose numbers changed."""
        for watch in watches:
            self.dirty.update(self._watching.get(watch, {}))

    def retry(self) -> None:
        """Make again the recipes that were too large: something was freed."""
        for recipe in self._recipes.values():
            if recipe.too_large:
                if not recipe.holds:
                    self._hold(recipe)
                self.dirty[recipe] = None

    def make(self, now_ns: int) -> list[Recipe]:
        """Make the dirty recipes' rule sets; give the recipes."""
        made = list(self.dirty)
        self.dirty.clear()
        self.made.update(made)
        for recipe in made:
            content = compile_rules(
                [stored.rules for stored in recipe.policies],
                recipe.direction,
                recipe.own_ports,
                self._watches.numbers,
            )
            recipe.problems = [problem for stored in recipe.policies for problem in stored.rules.problems]
            recipe.problems += _unknown_ports(recipe, self._watches)
            recipe.too_large = self._place(recipe, content, now_ns)
            if recipe.too_large is not None:
                self._let_go(recipe, now_ns)
        return made

    def _place(self, recipe: Recipe, content: RuleSetContent, now_ns: int) -> Problem | None:
        """Give the recipe its rule set, or say why there is no room for it (classes are counted later)."""
        digest = content.digest
        found = self._maps.find_rule_set(digest)
        if found is None:
            pages = pages_of(content)
            problem = self._find_too_large(recipe, pages)
            if problem is not None:
                self.set_rule_set(recipe, None, now_ns)
                return problem
            numbers = {
                peer: self._peers.acquire(peer) for peer in {peer for page in pages for peer in page.uses}
            }
            kept = self.remembered.find_pages(digest, pages) or []
            found = RuleSet(content, digest, pages, kept, numbers)
            self._maps.add_rule_set(found)
            self.added[found] = None
        self.set_rule_set(recipe, found, now_ns)
        return None

    def _find_too_large(self, recipe: Recipe, pages: list[Page]) -> Problem | None:
        capacity, maps = self._capacity, self._maps
        if len(pages) > MAX_PAGES:
            return too_large(recipe, f"more than {MAX_PAGES * PAGE_GROUPS} rule groups")
        ports = sum(len(page.ports) for page in pages)
        if maps.ports + ports > capacity.ports:
            return too_large(recipe, f"{ports} port prefixes, room for {capacity.ports - maps.ports}")
        if len(maps.of_page) + len(pages) > capacity.rule_sets:
            return too_large(recipe, "no room for another rule set")
        return None

    def refuse(self, rule_set: RuleSet, reason: str, now_ns: int) -> None:
        """Take a rule set back that was made since the last plan: there is no room for its peers."""
        for recipe in self._recipes.values():
            if recipe.rule_set is rule_set:
                recipe.too_large = too_large(recipe, reason)
                self.set_rule_set(recipe, None, now_ns)
                self._let_go(recipe, now_ns)
        del self.added[rule_set]
        self.drop(rule_set, now_ns)

    def drop(self, rule_set: RuleSet, now_ns: int) -> list[tuple[int, int]]:
        """Forget a rule set that nothing refers to; give the keys of its peers entries."""
        keys = self._maps.drop_rule_set(rule_set)
        for number in rule_set.peers.values():
            self._peers.release(number, now_ns)
        return keys


def use(rule_set: RuleSet) -> None:
    """Refer to a rule set once more."""
    rule_set.users += 1
    rule_set.unused_since_ns = None


def disuse(rule_set: RuleSet, now_ns: int) -> None:
    """Refer to a rule set once less."""
    rule_set.users -= 1
    if not rule_set.users:
        rule_set.unused_since_ns = now_ns


def too_large(recipe: Recipe, reason: str) -> Problem:
    """Name the policy that needs the most of what does not fit; the rules in force stay."""
    largest = max(recipe.policies, key=lambda stored: _size(stored, recipe.direction))
    message = f"{recipe.direction.value} rules do not fit ({reason}); the rules in force before stay"
    return Problem(ProblemKind.TOO_LARGE, largest.rules.ref, f"spec.{recipe.direction.value}", message)


def _size(stored: StoredPolicy, direction: Direction) -> tuple[int, int]:
    """How much a policy asks for, and of two equal ones the newer."""
    rules = stored.rules.rules(direction)
    return (sum(len(rule.peers) + len(rule.ports or ()) for rule in rules), stored.version)


def _asks_own_ports(policies: list[StoredPolicy], direction: Direction) -> bool:
    if direction is Direction.EGRESS:
        return False
    return any(
        isinstance(port, NamedPortMatch)
        for stored in policies
        for rule in stored.rules.ingress
        for port in rule.ports or ()
    )


def _unknown_ports(recipe: Recipe, watches: Watches) -> list[Problem]:
    """Name the rules that ask for a port by a name that no pod concerned has; such a port matches nothing."""
    found: dict[Problem, None] = {}
    for stored in recipe.policies:
        for rule in stored.rules.rules(recipe.direction):
            for port in rule.ports or ():
                if isinstance(port, NamedPortMatch) and not _is_known(recipe, rule, port, watches):
                    whose = (
                        "the selected pod" if recipe.direction is Direction.INGRESS else "any of its peers"
                    )
                    message = f"no port of {whose} is named {port.name}, so it matches nothing there"
                    found[
                        Problem(ProblemKind.UNKNOWN_NAMED_PORT, rule.policy, f"spec.{rule.path}", message)
                    ] = None
    return list(found)


def _is_known(recipe: Recipe, rule: Rule, port: NamedPortMatch, watches: Watches) -> bool:
    if recipe.direction is Direction.INGRESS:
        return any(port.matches(own.name, own.protocol) for own in recipe.own_ports)
    return any(watches.numbers(Watch(peer, port)) for peer in rule.peers)
