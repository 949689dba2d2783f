// Frames of our decoder where the browser cannot play the video.
const frames = {
  shownAt: null,
  isLoading: false,
  rate: 1,
  // Why they are shown.
  note: "",

  // Shows the frame at the playing position as soon as the last one is there.
  show() {
    const number = Math.round(player.time / frameSeconds);
    if (this.isLoading || number === this.shownAt || !data.has_video) return;
    this.shownAt = number;
    this.isLoading = true;
    $("still").src = `../frame/${data.number}?t=${player.time.toFixed(4)}`;
  },

  loaded(isShown) {
    this.isLoading = false;
    $("still").hidden = !isShown;
    $("failure").textContent = isShown ? this.note
      : "No frame can be shown here: the video is damaged, or it was moved. " +
        "If it was moved, start the review again with --videos=FOLDER.";
    if (isShown) this.show();
  },

  toggle() {
    player.ownPlaying = !player.ownPlaying;
    let last = performance.now();
    const step = (now) => {
      if (!player.ownPlaying) return;
      player.ownTime += (now - last) / 1000 * this.rate;
      last = now;
      if (player.ownTime >= data.duration) {
        player.ownTime = data.duration;
        player.ownPlaying = false;
      }
      showTime();
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  },
};

$("still").addEventListener("load", () => frames.loaded(true));
$("still").addEventListener("error", () => frames.loaded(false));

player.fail = (reason) => {
  if (!player.works) return;
  player.ownTime = player.time;
  player.works = false;
  player.video.hidden = true;
  frames.note = `This browser cannot play ${player.video.dataset.name} ` +
    `(${reason}): its frames are decoded here, without sound.`;
  $("failure").textContent = frames.note;
  $("failure").hidden = false;
  showTime();
};

const togglePlaying = () => player.works ? player.toggle() : frames.toggle();

function setSpeed(rate) {
  frames.rate = rate;
  if (player.works) player.video.playbackRate = rate;
  $("speed").value = rate;
}
