// The time of the page: the video's, or its own where no video can play.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function clockText(seconds, digits = 1) {
  const rounded = Number(Math.max(seconds, 0).toFixed(digits));
  const hours = Math.floor(rounded / 3600);
  const minutes = String(Math.floor(rounded / 60) % 60);
  const rest = (rounded % 60).toFixed(digits).padStart(
    digits ? digits + 3 : 2, "0");
  return hours ? `${hours}:${minutes.padStart(2, "0")}:${rest}`
    : `${minutes}:${rest}`;
}

const player = {
  video: $("video"),
  works: Boolean($("video")),
  // Where the video has no time: before it is loaded, or if it cannot play.
  ownTime: 0,
  // Whether that time runs, on a page that can show frames by itself.
  ownPlaying: false,
  // The browser's time at 0:00. Some count from the file's own time stamps,
  // and start a file that begins at a minute there.
  start: 0,

  get isLoaded() {
    return this.works && this.video.readyState > 0;
  },

  get time() {
    return this.isLoaded ? this.video.currentTime - this.start : this.ownTime;
  },

  get playing() {
    return this.works ? !this.video.paused && !this.video.ended
      : this.ownPlaying;
  },

  seek(seconds) {
    const time = Math.min(Math.max(seconds, 0), data.duration);
    if (this.isLoaded) this.video.currentTime = this.start + time;
    else this.ownTime = time;
    showTime();
  },

  toggle() {
    if (!this.works) return;
    if (this.video.paused) this.video.play().catch(() => {});
    else this.video.pause();
  },

  fail(reason) {
    if (!this.works) return;
    this.ownTime = this.time;
    this.works = false;
    const name = this.video.dataset.name;
    $("failure").textContent = `This browser cannot play ${name} ` +
      `(${reason}). Keep the video where it was when this page was written. ` +
      "If it is there, the browser does not know its codec: try another " +
      `browser, or make a copy with: ffmpeg -i "${name}" -c:v libx264 ` +
      "-pix_fmt yuv420p copy.mp4. The timeline below works without it.";
    $("failure").hidden = false;
    this.video.hidden = true;
    showTime();
  },

  watch() {
    const video = this.video;
    const reasons = ["", "loading was stopped", "it could not be read",
      "it could not be decoded", "missing, or of an unknown format"];
    const failed = () => this.fail(reasons[video.error?.code ?? 4]);
    video.addEventListener("error", failed);
    const loaded = () => {
      this.start = video.currentTime;
      if (!video.videoWidth) {
        this.fail("its sound can be played, but not its frames");
      } else if (this.ownTime) {
        this.seek(this.ownTime);
      }
      showTime();
    };
    if (this.isLoaded) loaded();
    else video.addEventListener("loadedmetadata", loaded);
    for (const name of ["timeupdate", "seeking", "seeked", "pause"]) {
      video.addEventListener(name, showTime);
    }
    const eachFrame = () => {
      showTime();
      if (this.playing) requestAnimationFrame(eachFrame);
    };
    video.addEventListener("play", eachFrame);
    if (video.error) failed();
  },
};
