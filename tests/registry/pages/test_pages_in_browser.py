"""The pages in a real browser: by mouse and by keyboard, light and dark, wide and on a phone, with
and without JavaScript.

`RATCHET_SCREENSHOTS=<folder>` keeps what was seen.
"""

import asyncio
import base64
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from ratchet.local_stack.ports import free_port
from tests.registry.credentials import OPERATE
from tests.registry.pages.demo_data import Showroom, run_of
from tests.registry.samples import DatabaseFixture
from tests.support.browser import browser

pytestmark = pytest.mark.timeout(240)

WIDE, PHONE = (1100, 900), (390, 844)
SCHEMES = ("light", "dark")


class House:
    """A registry with a past, served on this machine by a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.registry_db = DatabaseFixture(f"sqlite:///{folder}/registry.db")
        self.room = Showroom(self.registry_db, folder)
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        config = uvicorn.Config(
            self.room.app, "127.0.0.1", self.port, log_config=None, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        await self.room.fill()
        deploying = asyncio.create_task(self.room.deployer.run())
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.01)
        self._ready.set()
        await serving
        deploying.cancel()
        await asyncio.gather(deploying, return_exceptions=True)

    def __enter__(self) -> "House":
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._loop.close()
        self.registry_db.close()

    def do(self, work: Any) -> None:
        """Have a coroutine done where the registry runs."""
        done: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        done.result(20)

    @property
    def champion(self) -> str:
        return self.registry_db.champion

    @property
    def previous(self) -> str:
        assert self.registry_db.aliases.previous is not None
        return self.registry_db.aliases.previous


class Person:
    """Somebody with a browser, who notices what no page should do."""

    def __init__(self, driver: Chrome, house: House, folder: Path) -> None:
        self.driver, self.house, self.folder = driver, house, folder
        self.address = f"http://127.0.0.1:{house.port}"

    def look(
        self, scheme: str = "light", size: tuple[int, int] = WIDE, scripts: bool = True
    ) -> None:
        """What the machine is like that the browser runs on."""
        self._tell(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self._tell(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size == PHONE,
        )
        self._tell("Emulation.setScrollbarsHidden", hidden=True)
        self._tell("Emulation.setScriptExecutionDisabled", value=not scripts)

    def visit(self, path: str) -> None:
        self.driver.get(self.address + path)
        self.notice()

    def sign_in(self) -> None:
        """As whoever may operate; asking for a confirmation leads there, and back to it."""
        self.visit("/models/support/rollback")
        assert self.see("h1") == "Sign in"
        self.driver.find_element(By.ID, "token").send_keys(OPERATE, Keys.ENTER)
        self.until(lambda: "Roll back" in self.see("h1"))
        self.notice()

    def notice(self) -> None:
        """Nothing is asked of anyone else, the console is silent, and a page is no wider than its
        window.
        """
        asked = self.driver.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert [name for name in asked if not name.startswith(self.address)] == []
        console = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium has no types for it
        assert [entry for entry in console if entry["level"] in ("SEVERE", "WARNING")] == []
        wide, room = self.driver.execute_script(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= room, self.driver.current_url

    def see(self, css: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, css).text

    def click(self, text: str) -> None:
        self.driver.find_element(
            By.XPATH, f"//*[self::a or self::button][contains(normalize-space(), '{text}')]"
        ).click()

    def until(self, seen: Callable[[], Any]) -> None:
        # What a page puts in another's place is gone for whoever was looking at it.
        WebDriverWait(self.driver, 30, 0.1, [StaleElementReferenceException]).until(
            lambda _: seen()
        )

    def tab_to(self, css: str) -> None:
        """Go to an element by the keyboard alone; where the focus is, is to be seen."""
        for _ in range(80):
            ActionChains(self.driver).send_keys(Keys.TAB).perform()
            if self.driver.execute_script(
                "return document.activeElement.matches(arguments[0])", css
            ):
                outline = (
                    "const s = getComputedStyle(document.activeElement); return s.outlineStyle + "
                    "' ' + s.outlineWidth"
                )
                assert self.driver.execute_script(f"{outline}").startswith(("solid 3px", "auto"))
                return
        raise AssertionError(f"no way to {css} by the keyboard")

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def photograph(self, name: str, tallest: int = 1100, of: str = "html") -> None:
        """Keep what a page, or a part of it, looks like, down to `tallest` pixels."""
        place = (
            "const r = document.querySelector(arguments[0]).getBoundingClientRect(); return "
            "[r.x, r.y + scrollY, r.width, r.height]"
        )
        x, y, width, height = self.driver.execute_script(place, of)
        clip = {"x": x, "y": y, "width": width, "height": min(height, tallest), "scale": 1}
        taken = self._tell(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))

    def _tell(self, command: str, **said: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, said)


@contextmanager
def visited(folder: Path) -> Iterator[Person]:
    pictures = Path(os.environ.get("RATCHET_SCREENSHOTS") or folder / "screenshots")
    (folder / "registry").mkdir()
    with browser(folder / "profile", *WIDE) as driver, House(folder / "registry") as house:
        person = Person(driver, house, pictures)
        person.sign_in()
        yield person


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    with visited(tmp_path_factory.mktemp("visit")) as person:
        yield person


@pytest.fixture
def person(one: Person) -> Person:
    one.look()
    return one


def pages_of(house: House) -> dict[str, str]:
    champion, previous = house.champion, house.previous
    return {
        "models": "/",
        "model": "/models/support",
        "version": f"/models/support/versions/{champion}",
        "lineage": f"/models/support/versions/{champion}/lineage",
        "compare": f"/models/support/compare?first={previous}&second={champion}",
        "run": f"/models/support/runs/{run_of(2)}",
        "training": f"/models/support/runs/{run_of(4)}",
        "rollback": f"/models/support/rollback?to={previous}",
        "sign-in": "/sign-in",
    }


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_page_is_fine(person: Person, scheme: str, size: tuple[int, int]) -> None:
    person.look(scheme, size)
    for name, path in pages_of(person.house).items():
        person.visit(path)
        assert person.see("h1")
        dark = (
            "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).every(part "
            "=> Number(part) < 64)"
        )
        assert person.driver.execute_script(dark) == (scheme == "dark")
        plots = person.driver.find_elements(By.CSS_SELECTOR, ".plot canvas")
        assert len(plots) == (1 if name in ("model", "version", "run", "training") else 0), name
        machine = f"{scheme}-{'phone' if size == PHONE else 'wide'}"
        person.photograph(f"{name}-{machine}")
        for part in {"model": ["timeline"], "version": ["data"]}.get(name, []):
            person.photograph(f"{part}-{machine}", of=f"section[aria-labelledby={part}]")


def test_text_has_contrast_enough(person: Person) -> None:
    """At least 4.5 to 1 for every text, as WCAG 2.1 asks at level AA."""
    script = """
      const parse = (text) => text.match(/[0-9.]+/g).map(Number);
      const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
      const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
          const found = parse(getComputedStyle(at).backgroundColor);
          if (found.length === 3 || found[3] > 0) return found;
        }
        return [255, 255, 255];
      };
      const poor = [];
      for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
        if (!own || !node.getClientRects().length) continue;
        const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
        if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) poor.push(node.outerHTML.slice(0, 120));
      }
      return poor;
    """
    for scheme in SCHEMES:
        person.look(scheme)
        for path in pages_of(person.house).values():
            person.visit(path)
            assert person.driver.execute_script(script) == []


def test_a_text_that_attacks_is_only_text(person: Person) -> None:
    shown = 0
    for number in range(3):
        person.visit(f"/models/support/runs/{run_of(number)}")
        shown += "window.hacked = 1" in person.see("main")
        assert person.driver.execute_script(
            "return [typeof window.hacked, document.querySelectorAll('main img, main "
            "script').length]"
        ) == [
            "undefined",
            0,
        ]
    assert shown


def test_a_loss_curve_grows_while_one_looks_and_the_verdict_comes_by_itself(person: Person) -> None:
    person.visit(f"/models/support/runs/{run_of(4)}")
    plot = person.driver.find_element(By.CSS_SELECTOR, ".plot")
    before = int(str(plot.get_attribute("data-points")))
    canvas = "return document.querySelector('.plot canvas').toDataURL()"
    drawn = person.driver.execute_script(canvas)
    room = person.house.room
    for step in range(before + 1, before + 4):
        person.house.do(room.step(4, step))
    person.until(lambda: int(str(plot.get_attribute("data-points"))) == before + 3)
    person.until(lambda: person.driver.execute_script(canvas) != drawn)
    assert f"step {before + 3} of 24" in person.see("#progress")
    assert person.driver.find_element(By.TAG_NAME, "progress").get_attribute("value") == str(
        before + 3
    )
    person.photograph("live-light-wide")
    person.house.do(room.reject(4))
    person.until(lambda: person.driver.find_elements(By.ID, "evaluation"))
    assert "rejected" in person.see("#progress")
    person.notice()


def test_a_rollback_by_clicking(person: Person) -> None:
    before, after = person.house.champion, person.house.previous
    person.visit("/models/support")
    person.click("Roll back")
    assert person.see("table.sides").index(before) < person.see("table.sides").index(after)
    person.driver.find_element(By.ID, "reason").send_keys("answers are too terse")
    person.photograph("confirmation-light-wide")
    person.click(f"Roll back to {after}")
    person.until(lambda: f"{after} is serving again" in person.see("#move-result"))
    person.photograph("rolled-back-light-wide", 900)
    assert "answers are too terse" in person.see(".timeline")
    assert (person.house.champion, person.house.room.target.champion) == (after, after)
    person.notice()


def test_a_rollback_by_the_keyboard_alone(person: Person) -> None:
    before, after = person.house.champion, person.house.previous
    person.visit("/models/support")
    person.tab_to("a.skip")
    person.press(Keys.ENTER)
    person.tab_to("a[href='/models/support/rollback']")
    person.press(Keys.ENTER)
    person.until(lambda: person.driver.find_elements(By.ID, "reason"))
    person.tab_to("#reason")
    person.press("forward again")
    person.tab_to("button.decisive")
    person.photograph("keyboard-light-wide", 900)
    person.press(Keys.ENTER)
    person.until(lambda: person.house.champion == after)
    person.until(lambda: f"{after} is serving again" in person.see("#move-result"))
    assert person.house.previous == before


def test_a_place_that_is_away_is_said_until_it_is_back(person: Person) -> None:
    after, target = person.house.previous, person.house.room.target
    target.away = True
    person.visit("/models/support/rollback")
    person.driver.find_element(By.ID, "reason").send_keys("while it is away")
    person.click(f"Roll back to {after}")
    person.until(lambda: "Still deploying" in person.see("#move-result"))
    person.until(lambda: "nobody is there" in person.see("#move-result"))
    person.photograph("deploying-light-wide", 900)
    target.away = False
    person.until(lambda: f"{after} is serving again" in person.see("#move-result"))
    person.notice()


def test_without_a_reason_nothing_is_sent(person: Person) -> None:
    champion = person.house.champion
    person.visit("/models/support/rollback")
    person.driver.find_element(By.CSS_SELECTOR, "button.decisive").click()
    assert person.driver.execute_script(
        "return document.querySelector('#reason').matches(':invalid')"
    )
    assert person.house.champion == champion


def test_two_versions_are_chosen_and_compared(person: Person) -> None:
    person.visit("/models/support")
    person.click("Compare")
    person.until(lambda: "/compare?first=" in person.driver.current_url)
    assert "learning rate" in person.see("table.sides")
    person.notice()


def test_errors_say_where_to_go(person: Person) -> None:
    person.driver.get(f"{person.address}/models/support/versions/v7")
    assert "404" in person.see("h1")
    person.photograph("error-light-wide", 600)
    person.click("page of support")
    person.until(lambda: person.see("h1") == "support")
    person.driver.get_log("browser")  # type: ignore[no-untyped-call]  # what the browser says of the 404 itself


def test_the_api_is_shown_and_nothing_is_asked_of_anyone_else(person: Person) -> None:
    person.look()
    person.visit("/docs")
    person.until(lambda: person.see(".opblock-summary-path"))
    asked = person.driver.execute_script(
        "return performance.getEntriesByType('resource').map(entry => new URL(entry.name).pathname)"
    )
    assert {"/static/swagger-ui-bundle.js", "/static/swagger-ui.css", "/openapi.json"} <= set(asked)
    person.driver.find_element(By.CSS_SELECTOR, ".opblock-summary-control").click()
    person.until(lambda: person.see(".opblock-body"))
    person.notice()
    person.photograph("docs")
    person.visit("/redoc")
    assert person.driver.current_url == f"{person.address}/docs"


def test_without_javascript_everything_is_there_but_what_moves(person: Person) -> None:
    person.look(scripts=False)
    try:
        champion, after = person.house.champion, person.house.previous
        person.driver.get(f"{person.address}/models/support/versions/{champion}")
        assert "Table of the 24 points" in person.see("main")
        person.driver.find_element(By.TAG_NAME, "summary").click()
        assert person.driver.find_element(By.CSS_SELECTOR, "details td.number").is_displayed()
        person.driver.get(f"{person.address}/models/support/rollback")
        person.driver.find_element(By.ID, "reason").send_keys("without a script")
        person.click(f"Roll back to {after}")
        person.until(lambda: person.house.champion == after)
        person.until(lambda: f"{after} is serving again" in person.see("#move-result"))
    finally:
        person.look()
