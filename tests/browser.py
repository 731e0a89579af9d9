"""Chromium without a window, driven over its debugging pipe: what a page looks like and does in a real browser."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import selectors
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["HOW_TO_INSTALL", "Browser", "Page", "find_chromium"]

HOW_TO_INSTALL = "there is no chromium on this machine: apt-get install chromium"

_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--hide-scrollbars",
    "--font-render-hinting=none",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def find_chromium() -> str | None:
    """Return where a Chromium or Chrome is, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


class Browser:
    """One Chromium process with a profile of its own; a context manager, which ends it."""

    def __init__(self, binary: str, profile: Path) -> None:
        for_browser, self._send_to = os.pipe()
        self._receive_from, from_browser = os.pipe()
        # The browser reads file descriptor 3 and writes 4, whatever numbers they have here.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (for_browser, from_browser)]
        # Its sandbox does not start for root.
        flags = [*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else []), f"--user-data-dir={profile}"]

        def connect() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self._process = subprocess.Popen(
            [binary, *flags, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=connect,
        )
        for end in (for_browser, from_browser, *ends):
            os.close(end)
        self._unread = b""
        self._last_id = 0
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(timeout=10)
        except (OSError, subprocess.TimeoutExpired, TimeoutError):
            self._process.kill()
            self._process.wait()
        finally:
            os.close(self._send_to)
            os.close(self._receive_from)

    def open(
        self, address: Path | str, *, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1
    ) -> Page:
        """Open a file from disk, without network, or a page of this machine, in a new tab; a phone is below 600 wide."""
        is_file = isinstance(address, Path)
        url = address.resolve().as_uri() if isinstance(address, Path) else address
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target, "file:" if is_file else url.rpartition("/")[0] + "/")
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            page.call(f"{domain}.enable")
        speed = {"latency": 0, "downloadThroughput": 0 if is_file else -1, "uploadThroughput": 0 if is_file else -1}
        page.call("Network.emulateNetworkConditions", offline=is_file, **speed)
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.call("Page.navigate", url=url)
        page.wait_for("Page.loadEventFired")
        return page

    def call(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its result."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        os.write(self._send_to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") != self._last_id:
                self._events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            else:
                result: dict[str, Any] = answer["result"]
                return result

    def events(self, session: str) -> list[dict[str, Any]]:
        """Return what a tab has reported so far."""
        return [event for event in self._events if event.get("sessionId") == session]

    def wait(self) -> None:
        """Wait for the next report of any tab."""
        self._events.append(self._receive())

    def _receive(self, seconds: float = 60) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._receive_from, selectors.EVENT_READ)
            while b"\0" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"chromium did not answer within {seconds:g} s")
                received = os.read(self._receive_from, 1 << 20)
                if not received:
                    raise ConnectionError("chromium has ended")
                self._unread += received
        message, _, self._unread = self._unread.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed


class Page:
    """A tab with a page in it, which may ask for nothing that does not begin with ``home``."""

    def __init__(self, browser: Browser, session: str, target: str, home: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target
        self._home = home

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol to this tab."""
        return self._browser.call(method, session=self._session, **params)

    def wait_for(self, event: str) -> None:
        """Wait until the tab has reported an event."""
        while not any(seen["method"] == event for seen in self._browser.events(self._session)):
            self._browser.wait()

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = 20) -> None:
        """Wait until a JavaScript expression is true; raise TimeoutError where it does not become so."""
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"within {seconds:g} s this did not become true: {condition}")
            time.sleep(0.01)

    def click(self, selector: str) -> None:
        """Click with the mouse on the middle of an element, scrolled into view."""
        place = self.run(
            f"""(() => {{
              const element = document.querySelector({json.dumps(selector)});
              element.scrollIntoView({{ block: "center", behavior: "instant" }});
              const box = element.getBoundingClientRect();
              return {{ x: box.x + box.width / 2, y: box.y + box.height / 2 }};
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def type(self, text: str) -> None:
        """Write a text where the focus is, as a keyboard or a paste would."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, ctrl: bool = False) -> None:
        """Press and release a key, such as ``"Enter"`` or ``"Tab"``."""
        code = {"Enter": 13, "Tab": 9, " ": 32, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40}[key]
        text = {"Enter": "\r", " ": " "}.get(key, "")
        described = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 2 if ctrl else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **described)
        self.call("Input.dispatchKeyEvent", type="keyUp", **described)

    def complaints(self) -> list[str]:
        """Return errors and warnings of the console, violations of the policy, and requests of what is not the page's."""
        found = []
        for event in self._browser.events(self._session):
            params = event.get("params", {})
            match event["method"]:
                case "Runtime.exceptionThrown":
                    found.append(str(params["exceptionDetails"]))
                case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                    found.append(f"console: {params['args']}")
                case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                    found.append(f"{params['entry']['source']}: {params['entry']['text']}")
                case "Audits.issueAdded":
                    found.append(f"issue: {json.dumps(params['issue'])}")
                case "Network.requestWillBeSent" if not params["request"]["url"].startswith(self._home):
                    found.append(f"request: {params['request']['url']}")
                case "Page.javascriptDialogOpening":
                    found.append(f"dialog: {params['message']}")
        return found

    def screenshot(self, *, top: int = 0, height: int = 900) -> bytes:
        """Return a PNG of ``height`` pixels of the page, from ``top`` on."""
        width = self.run("innerWidth")
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)
