"""Chromium without a screen, with what a person does to the page: for its tests and pictures."""

import base64
import os
import shutil
import time

import numpy as np

from tests.waiting import HANG_S

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")


class Browser:
    """One window on the page; leaving the context closes it."""

    def __init__(self, width=1200, height=800, is_phone=False, scheme="light"):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in ("--headless=new", "--disable-gpu", "--hide-scrollbars"):
            options.add_argument(flag)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # which Chromium refuses to do for root
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(DRIVER))
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if is_phone else 1}
        self._command("Emulation.setDeviceMetricsOverride", mobile=is_phone, **size)
        self._command("Emulation.setTouchEmulationEnabled", enabled=is_phone)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._command("Emulation.setEmulatedMedia", features=features)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.driver.quit()

    def open(self, url):
        """Opens the page and waits until a model is ready."""
        self.driver.get(url)
        self.wait(lambda: self.script("return document.querySelectorAll('#scores tr').length"))

    def draw(self, strokes, kind="mouse"):
        """Draws with real events of the pointer; returns the strokes as the page must have them."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        box = "const { left, top, width } = field.getBoundingClientRect()"
        left, top, width = self.script(f"{box}; return [left, top, width]")
        drawn = []
        for stroke in strokes:
            builder = ActionBuilder(self.driver, mouse=PointerInput(kind, kind), duration=0)
            places = [
                (round(left + x * width / 280), round(top + y * width / 280)) for x, y in stroke
            ]
            for i, place in enumerate(places):
                builder.pointer_action.move_to_location(*place)
                if i == 0:
                    builder.pointer_action.pointer_down()
            builder.pointer_action.pointer_up()
            builder.perform()
            drawn.append([[(x - left) * 280 / width, (y - top) * 280 / width] for x, y in places])
        self.wait(lambda: self.text("said"))
        return drawn

    def press(self, *keys):
        self.driver.switch_to.active_element.send_keys(*keys)

    def click(self, name):
        self._find(name).click()

    def choose(self, name, text):
        from selenium.webdriver.support.select import Select

        Select(self._find(name)).select_by_visible_text(text)

    def upload(self, path):
        self._find("file").send_keys(str(path))

    def clear(self):
        self.script("document.getElementById('field').focus()")
        self.press("\ue00c")  # Escape
        self.wait(lambda: self.text("answer") == "nothing yet" and not self.text("said"))

    def text(self, name):
        return self._find(name).get_attribute("textContent")

    def seen(self):
        """Returns the pixels that are shown as what the model sees, uint8 `[side, side]`."""
        colours = self.seen_in_colour()
        assert (colours == colours[..., :1]).all()
        return colours[..., 0]

    def seen_in_colour(self):
        """Returns the same as uint8 `[side, side, 3]`."""
        side = self.script("return seen.width")
        pixels = self.script(
            "const context = seen.getContext('2d');"
            f"return Array.from(context.getImageData(0, 0, {side}, {side}).data)"
        )
        rgba = np.array(pixels, np.uint8).reshape(side, side, 4)
        assert (rgba[..., 3] == 255).all()
        return rgba[..., :3]

    def scores(self):
        """Returns the scores in full, as the table has them for who points at one."""
        cells = "#scores td:last-child"
        texts = self.script(f"return [...document.querySelectorAll('{cells}')].map(c => c.title)")
        return np.array([float(text) for text in texts])

    def addresses(self):
        """Returns every address that the page has asked for."""
        entries = "performance.getEntriesByType('resource')"
        return self.script(f"return {entries}.map(entry => entry.name)")

    def complaints(self):
        """Returns what the browser has complained of since it was last asked, in one line each."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def save(self, path):
        """Takes a picture of the whole page."""
        time.sleep(0.3)  # until the bars have moved
        answer = self._command("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def script(self, text):
        return self.driver.execute_script(text)

    def wait(self, is_so):
        """Waits until something is so."""
        end = time.monotonic() + HANG_S
        while not (found := is_so()):
            assert time.monotonic() < end, f"waited for {HANG_S} s; {self.complaints()}"
            time.sleep(0.02)
        return found

    def _find(self, name):
        return self.driver.find_element("id", name)

    def _command(self, name, **parameters):
        return self.driver.execute_cdp_cmd(name, parameters)
