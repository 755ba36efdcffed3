"""The pages in a real browser: mouse and keyboard, light and dark, desktop and phone, with and
without JavaScript.

`RATCHET_SCREENSHOTS=<folder>` keeps the screenshots.
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
from shared.events import BatchCounts
from tests.registry.api.test_training_requests import answer
from tests.registry.pages.demo_data import DemoRegistry, run_of
from tests.registry.pages.test_new_run import declare_lane
from tests.support.browser import browser
from tests.support.credentials import OPERATE
from tests.support.imported_files import chat, write_jsonl
from tests.support.registry_events import DatabaseFixture

pytestmark = pytest.mark.timeout(240)

WIDE, PHONE = (1100, 900), (390, 844)
SCHEMES = ("light", "dark")


class RegistryServer:
    """A registry with demo data, served by its own thread."""

    def __init__(self, folder: Path) -> None:
        self.registry_db = DatabaseFixture(f"sqlite:///{folder}/registry.db")
        self.demo = DemoRegistry(self.registry_db, folder)
        declare_lane(self.demo)
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        config = uvicorn.Config(
            self.demo.app, "127.0.0.1", self.port, log_config=None, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        await self.demo.fill()
        deploying = asyncio.create_task(self.demo.deployer.run())
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.01)
        self._ready.set()
        await serving
        deploying.cancel()
        await asyncio.gather(deploying, return_exceptions=True)

    def __enter__(self) -> "RegistryServer":
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._loop.close()
        self.registry_db.close()

    def do(self, work: Any) -> None:
        """Run a coroutine in the event loop of the registry."""
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(20)

    @property
    def champion(self) -> str:
        return self.registry_db.champion

    @property
    def previous(self) -> str:
        assert self.registry_db.aliases.previous is not None
        return self.registry_db.aliases.previous


class BrowserUser:
    """A browser session that checks every page for forbidden behaviour."""

    def __init__(self, driver: Chrome, server: RegistryServer, folder: Path) -> None:
        self.driver, self.server, self.folder = driver, server, folder
        self.address = f"http://127.0.0.1:{server.port}"

    def emulate(
        self, scheme: str = "light", size: tuple[int, int] = WIDE, scripts: bool = True
    ) -> None:
        """Emulate a colour scheme, a window size, and JavaScript on or off."""
        self._execute(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self._execute(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size == PHONE,
        )
        self._execute("Emulation.setScrollbarsHidden", hidden=True)
        self._execute("Emulation.setScriptExecutionDisabled", value=not scripts)

    def visit(self, path: str) -> None:
        self.driver.get(self.address + path)
        self.check_page()

    def sign_in(self) -> None:
        """Sign in as operator; the confirmation page redirects to the sign-in page and back."""
        self.visit("/models/support/rollback")
        assert self.text_of("h1") == "Sign in"
        self.driver.find_element(By.ID, "token").send_keys(OPERATE, Keys.ENTER)
        self.until(lambda: "Roll back" in self.text_of("h1"))
        self.check_page()

    def check_page(self) -> None:
        """Check that the page loads nothing from other hosts, logs nothing to the console, and fits
        its window.
        """
        requested = self.driver.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert [name for name in requested if not name.startswith(self.address)] == []
        console = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium has no types for it
        assert [entry for entry in console if entry["level"] in ("SEVERE", "WARNING")] == []
        width, available = self.driver.execute_script(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert width <= available, self.driver.current_url

    def text_of(self, css: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, css).text

    def click(self, text: str) -> None:
        self.driver.find_element(
            By.XPATH, f"//*[self::a or self::button][contains(normalize-space(), '{text}')]"
        ).click()

    def until(self, condition: Callable[[], Any]) -> None:
        # htmx replaces elements while the browser is waiting for them.
        WebDriverWait(self.driver, 30, 0.1, [StaleElementReferenceException]).until(
            lambda _: condition()
        )

    def tab_to(self, css: str) -> None:
        """Focus an element with the Tab key, and check that the focus is visible."""
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
        raise AssertionError(f"{css} cannot be reached by keyboard")

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def screenshot(self, name: str, max_height: int = 1100, of: str = "html") -> None:
        """Save a screenshot of an element, at most `max_height` pixels high."""
        script = (
            "const r = document.querySelector(arguments[0]).getBoundingClientRect(); return "
            "[r.x, r.y + scrollY, r.width, r.height]"
        )
        x, y, width, height = self.driver.execute_script(script, of)
        clip = {"x": x, "y": y, "width": width, "height": min(height, max_height), "scale": 1}
        screenshot_result = self._execute(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.png").write_bytes(base64.b64decode(screenshot_result["data"]))

    def _execute(self, command: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)


@contextmanager
def visited(folder: Path) -> Iterator[BrowserUser]:
    pictures = Path(os.environ.get("RATCHET_SCREENSHOTS") or folder / "screenshots")
    (folder / "registry").mkdir()
    with (
        browser(folder / "profile", *WIDE) as driver,
        RegistryServer(folder / "registry") as server,
    ):
        user = BrowserUser(driver, server, pictures)
        user.sign_in()
        yield user


@pytest.fixture(scope="module")
def session_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserUser]:
    with visited(tmp_path_factory.mktemp("visit")) as user:
        yield user


@pytest.fixture
def user(session_user: BrowserUser) -> BrowserUser:
    session_user.emulate()
    return session_user


def pages_of(server: RegistryServer) -> dict[str, str]:
    champion, previous = server.champion, server.previous
    return {
        "models": "/",
        "model": "/models/support",
        "version": f"/models/support/versions/{champion}",
        "lineage": f"/models/support/versions/{champion}/lineage",
        "compare": f"/models/support/compare?first={previous}&second={champion}",
        "run": f"/models/support/runs/{run_of(2)}",
        "training": f"/models/support/runs/{run_of(4)}",
        "rollback": f"/models/support/rollback?to={previous}",
        "train": "/models/support/train",
        "pause": "/models/support/pause",
        "playground": "/models/support/playground",
        "answers": "/models/support/playground/demo",
        "audit": "/audit",
        "sign-in": "/sign-in",
    }


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_page_renders_on_every_device(
    user: BrowserUser, scheme: str, size: tuple[int, int]
) -> None:
    user.emulate(scheme, size)
    for name, path in pages_of(user.server).items():
        user.visit(path)
        assert user.text_of("h1")
        dark = (
            "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).every(part "
            "=> Number(part) < 64)"
        )
        assert user.driver.execute_script(dark) == (scheme == "dark")
        plots = user.driver.find_elements(By.CSS_SELECTOR, ".plot canvas")
        assert len(plots) == (1 if name in ("model", "version", "run", "training") else 0), name
        machine = f"{scheme}-{'phone' if size == PHONE else 'wide'}"
        user.screenshot(f"{name}-{machine}")
        for part in {"model": ["timeline"], "version": ["data"]}.get(name, []):
            user.screenshot(f"{part}-{machine}", of=f"section[aria-labelledby={part}]")


def test_text_has_sufficient_contrast(user: BrowserUser) -> None:
    """Every text has a contrast of at least 4.5 to 1 (WCAG 2.1, level AA)."""
    script = """
      const parse = (text) => text.match(/[0-9.]+/g).map(Number);
      const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
      const light = ([r, g, b]) => [r, g, b].map((c) => linear(c / 255))
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
        const isText = (child) => child.nodeType === 3 && child.textContent.trim();
        const own = [...node.childNodes].some(isText);
        if (!own || !node.getClientRects().length) continue;
        const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) poor.push(node.outerHTML.slice(0, 120));
      }
      return poor;
    """
    for scheme in SCHEMES:
        user.emulate(scheme)
        for path in pages_of(user.server).values():
            user.visit(path)
            assert user.driver.execute_script(script) == []


def test_hostile_text_runs_nothing_in_browser(user: BrowserUser) -> None:
    shown = 0
    for number in range(3):
        user.visit(f"/models/support/runs/{run_of(number)}")
        shown += "window.hacked = 1" in user.text_of("main")
        assert user.driver.execute_script(
            "return [typeof window.hacked, document.querySelectorAll('main img, main "
            "script').length]"
        ) == [
            "undefined",
            0,
        ]
    assert shown


def test_a_blind_vote_is_taken_by_keyboard(user: BrowserUser) -> None:
    user.visit("/models/support/playground")
    user.driver.find_element(By.ID, "prompt").send_keys("Is <b>this</b> shown?")
    for box in user.driver.find_elements(By.CSS_SELECTOR, "fieldset input:not(:checked)"):
        box.click()
    user.click("Ask")
    user.until(lambda: user.text_of("h1") == "Answers side by side")
    user.check_page()
    assert "Is <b>this</b> shown?" in user.text_of("main")
    assert user.server.champion in user.text_of(".answers"), "the fake target names itself"
    assert not user.driver.find_elements(By.CSS_SELECTOR, ".answers dt a")
    user.tab_to("input[name=choice]")
    user.press(Keys.SPACE)
    user.tab_to("button.decisive")
    user.press(Keys.ENTER)
    user.until(lambda: user.driver.find_elements(By.ID, "voted"))
    assert "chose answer A" in user.text_of("#voted")
    assert user.driver.find_elements(By.CSS_SELECTOR, ".answers dt a")
    user.screenshot("voted-light-wide")


def test_run_page_updates_loss_curve_and_verdict_live(user: BrowserUser) -> None:
    user.visit(f"/models/support/runs/{run_of(4)}")
    plot = user.driver.find_element(By.CSS_SELECTOR, ".plot")
    before = int(str(plot.get_attribute("data-points")))
    canvas = "return document.querySelector('.plot canvas').toDataURL()"
    drawn = user.driver.execute_script(canvas)
    demo = user.server.demo
    for step in range(before + 1, before + 4):
        user.server.do(demo.step(4, step))
    user.until(lambda: int(str(plot.get_attribute("data-points"))) == before + 3)
    user.until(lambda: user.driver.execute_script(canvas) != drawn)
    assert f"step {before + 3} of 24" in user.text_of("#progress")
    assert user.driver.find_element(By.TAG_NAME, "progress").get_attribute("value") == str(
        before + 3
    )
    user.screenshot("live-light-wide")
    user.server.do(demo.reject(4))
    user.until(lambda: user.driver.find_elements(By.ID, "evaluation"))
    assert "rejected" in user.text_of("#progress")
    user.check_page()


def test_rollback_by_mouse(user: BrowserUser) -> None:
    before, after = user.server.champion, user.server.previous
    user.visit("/models/support")
    user.click("Roll back")
    assert user.text_of("table.sides").index(before) < user.text_of("table.sides").index(after)
    user.driver.find_element(By.ID, "reason").send_keys("answers are too terse")
    user.screenshot("confirmation-light-wide")
    user.click(f"Roll back to {after}")
    user.until(lambda: f"{after} is serving again" in user.text_of("#move-result"))
    user.screenshot("rolled-back-light-wide", 900)
    assert "answers are too terse" in user.text_of(".timeline")
    assert (user.server.champion, user.server.demo.target.champion) == (after, after)
    user.check_page()
    user.visit("/audit?model=support")
    newest = user.text_of("tbody tr")
    assert all(part in newest for part in ("rolled back", "operator", "answers are too terse"))
    user.screenshot("audit-of-model-light-wide")


def test_rollback_by_keyboard(user: BrowserUser) -> None:
    before, after = user.server.champion, user.server.previous
    user.visit("/models/support")
    user.tab_to("a.skip")
    user.press(Keys.ENTER)
    user.tab_to("a[href='/models/support/rollback']")
    user.press(Keys.ENTER)
    user.until(lambda: user.driver.find_elements(By.ID, "reason"))
    user.tab_to("#reason")
    user.press("forward again")
    user.tab_to("button.decisive")
    user.screenshot("keyboard-light-wide", 900)
    user.press(Keys.ENTER)
    user.until(lambda: user.server.champion == after)
    user.until(lambda: f"{after} is serving again" in user.text_of("#move-result"))
    assert user.server.previous == before


def test_unavailable_target_is_shown_until_it_recovers(user: BrowserUser) -> None:
    after, target = user.server.previous, user.server.demo.target
    target.away = True
    user.visit("/models/support/rollback")
    user.driver.find_element(By.ID, "reason").send_keys("while it is away")
    user.click(f"Roll back to {after}")
    user.until(lambda: "Still deploying" in user.text_of("#move-result"))
    user.until(lambda: "nobody is there" in user.text_of("#move-result"))
    user.screenshot("deploying-light-wide", 900)
    target.away = False
    user.until(lambda: f"{after} is serving again" in user.text_of("#move-result"))
    user.check_page()


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_uploaded_file_becomes_a_training_request(
    user: BrowserUser, size: tuple[int, int], tmp_path: Path
) -> None:
    machine = "phone" if size == PHONE else "wide"
    file = write_jsonl(tmp_path / "tickets.jsonl", [chat(str(n)) for n in range(20)])
    user.emulate(size=size)
    user.visit("/models/support")
    user.click("New training run")
    user.until(lambda: user.driver.find_elements(By.ID, "file"))
    user.driver.find_element(By.ID, "file").send_keys(str(file))
    user.driver.find_element(By.ID, "set_rank").send_keys("100")
    user.driver.find_element(By.ID, "reason").send_keys("the new product line")
    user.click("Check")
    user.until(lambda: "outside 8 to 64" in user.text_of("#problem"))
    user.screenshot(f"train-refused-{machine}")
    user.driver.find_element(By.ID, "set_rank").clear()
    user.driver.find_element(By.ID, "set_rank").send_keys("32")
    user.driver.get_log("browser")  # type: ignore[no-untyped-call]  # the browser's own message about the 422
    user.click("Check")
    user.until(lambda: "Start this training run" in user.text_of("h1"))
    user.check_page()
    user.screenshot(f"train-check-{machine}")
    user.click("Start")
    user.until(lambda: "waiting" in user.text_of("#state"))
    request_id = user.driver.current_url.rpartition("/")[2]
    demo = user.server.demo
    user.server.do(answer(demo, request_id, "building", detail="20 lines read: 18 examples"))
    user.until(lambda: "18 examples" in user.text_of("#state"))
    counts = BatchCounts(training=18, preference=0, negative=0, held_out=2)
    batch = {"batch_id": f"batch of {machine}", "counts": counts}
    user.server.do(answer(demo, request_id, "announced", **batch))
    user.until(lambda: "18 training examples" in user.text_of("#state"))
    user.screenshot(f"training-request-{machine}")
    user.check_page()
    user.visit("/models/support")
    user.screenshot(f"model-requests-{machine}", of="section[aria-labelledby=runs]")
    assert "tickets.jsonl" in user.text_of("section[aria-labelledby=runs]")


def test_form_without_reason_is_not_sent(user: BrowserUser) -> None:
    champion = user.server.champion
    user.visit("/models/support/rollback")
    user.driver.find_element(By.CSS_SELECTOR, "button.decisive").click()
    assert user.driver.execute_script(
        "return document.querySelector('#reason').matches(':invalid')"
    )
    assert user.server.champion == champion


def test_two_versions_are_selected_and_compared(user: BrowserUser) -> None:
    user.visit("/models/support")
    user.click("Compare")
    user.until(lambda: "/compare?first=" in user.driver.current_url)
    assert "learning rate" in user.text_of("table.sides")
    user.check_page()


def test_error_page_links_to_model(user: BrowserUser) -> None:
    user.driver.get(f"{user.address}/models/support/versions/v7")
    assert "404" in user.text_of("h1")
    user.screenshot("error-light-wide", 600)
    user.click("page of support")
    user.until(lambda: user.text_of("h1") == "support")
    user.driver.get_log("browser")  # type: ignore[no-untyped-call]  # the browser's own message about the 404


def test_api_docs_load_local_files_only(user: BrowserUser) -> None:
    user.emulate()
    user.visit("/docs")
    user.until(lambda: user.text_of(".opblock-summary-path"))
    requested = user.driver.execute_script(
        "return performance.getEntriesByType('resource').map(entry => new URL(entry.name).pathname)"
    )
    assert {
        "/docs/files/swagger-ui-bundle.js",
        "/docs/files/swagger-ui.css",
        "/openapi.json",
    } <= set(requested)
    user.driver.find_element(By.CSS_SELECTOR, ".opblock-summary-control").click()
    user.until(lambda: user.text_of(".opblock-body"))
    user.check_page()
    user.screenshot("docs")
    user.visit("/redoc")
    assert user.driver.current_url == f"{user.address}/docs"


def test_pages_work_without_javascript(user: BrowserUser) -> None:
    user.emulate(scripts=False)
    try:
        champion, after = user.server.champion, user.server.previous
        user.driver.get(f"{user.address}/models/support/versions/{champion}")
        assert "Table of the 24 points" in user.text_of("main")
        user.driver.find_element(By.TAG_NAME, "summary").click()
        assert user.driver.find_element(By.CSS_SELECTOR, "details td.number").is_displayed()
        user.driver.get(f"{user.address}/models/support/rollback")
        user.driver.find_element(By.ID, "reason").send_keys("without a script")
        user.click(f"Roll back to {after}")
        user.until(lambda: user.server.champion == after)
        user.until(lambda: f"{after} is serving again" in user.text_of("#move-result"))
    finally:
        user.emulate()
